//! The program by which the kernel chooses the receiving socket of a datagram.
//!
//! Sockets are numbered in the order in which they were bound: those that receive come first. A
//! sleeve packet starts with its sender's name (6 bytes), and the choice depends on nothing else, so
//! it survives a change of the sender's address.

use crate::sys::udp::Instruction;

/// Bytes of a sender's name behind the first two, which are often alike.
const NAME_TAIL: u32 = 2;

/// The program for `queues` receiving sockets.
pub(super) fn program(queues: usize) -> Vec<Instruction> {
    if queues <= 1 {
        return vec![give(0)];
    }
    let queues = u32::try_from(queues).unwrap_or(u32::MAX);
    vec![
        // Too short for a name: it will be dropped, whoever gets it.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0),
        Instruction {
            jump_true: 1,
            ..op(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, NAME_TAIL + 4)
        },
        give(0),
        // The last four bytes of the name, mixed so that names that differ little spread.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NAME_TAIL),
        op(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, 0x9e37_79b1),
        op(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 16),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, queues),
        op(libc::BPF_RET | libc::BPF_A, 0),
    ]
}

/// The queue that [`program`] chooses for packets of `name`.
#[cfg(test)]
pub(super) fn queue_of(name: proto::types::PeerName, queues: usize) -> usize {
    let [_, _, a, b, c, d] = *name.as_bytes();
    let mixed = u32::from_be_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b1) >> 16;
    mixed as usize % queues.max(1)
}

const fn op(code: u32, operand: u32) -> Instruction {
    Instruction {
        code: code as u16,
        jump_true: 0,
        jump_false: 0,
        operand,
    }
}

const fn give(index: u32) -> Instruction {
    op(libc::BPF_RET | libc::BPF_K, index)
}
