//! The program by which the kernel chooses the receiving socket of a datagram.
//!
//! Sockets are numbered in the order in which they were bound: those that receive come first. A
//! sleeve packet starts with its sender's name (6 bytes), and the choice depends on nothing else, so
//! it survives a change of the sender's address. A native datagram starts with zeros there. It goes
//! by stream and session, so that each stream stays in order, streams of one sender spread, and so
//! do senders. The receiver drew the session's number, whose bits are mixed well.

#[cfg(test)]
use proto::native::wire::is_native;

use kernel::sys::batch::Instruction;

/// Size in bytes of a sender's name without the first two, which are often alike.
const NAME_TAIL: u32 = 2;
/// Offsets of the stream of a native datagram, and of the last byte of its session.
const NATIVE_STREAM: u32 = 7;
const NATIVE_SESSION: u32 = 11;
/// Minimum size of a native datagram in bytes, whatever it starts with.
const NATIVE_BYTES_MIN: u32 = 12;

/// Returns the program for `queues` receiving sockets.
pub(super) fn program(queues: usize) -> Vec<Instruction> {
    if queues <= 1 {
        return vec![give(0)];
    }
    let queues = u32::try_from(queues).unwrap_or(u32::MAX);
    vec![
        // Too short for either: it will be dropped, whoever gets it.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0),
        jump_unless(libc::BPF_JGE, NATIVE_BYTES_MIN, 16),
        // A name of zeros?
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump_unless(libc::BPF_JEQ, 0, 9),
        op(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 4),
        jump_unless(libc::BPF_JEQ, 0, 7),
        // Each pair of a sender's threads has two streams, which are to stay together.
        op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, NATIVE_STREAM),
        op(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 1),
        op(libc::BPF_MISC | libc::BPF_TAX, 0),
        op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, NATIVE_SESSION),
        op(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, queues),
        op(libc::BPF_RET | libc::BPF_A, 0),
        // The last four bytes of the name, mixed so that names that differ little spread.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NAME_TAIL),
        op(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, 0x9e37_79b1),
        op(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 16),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, queues),
        op(libc::BPF_RET | libc::BPF_A, 0),
        give(0),
    ]
}

/// Returns the queue that [`program`] chooses for a datagram.
#[cfg(test)]
pub(super) fn queue_of(datagram: &[u8], queues: usize) -> usize {
    let &[_, _, a, b, c, d, _, stream, .., session] =
        datagram.first_chunk::<12>().unwrap_or(&[0; 12]);
    if datagram.len() < NATIVE_BYTES_MIN as usize {
        return 0;
    }
    if is_native(datagram) {
        return (usize::from(stream >> 1) + usize::from(session)) % queues.max(1);
    }
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

/// Goes on with the next instruction if the test holds, else skips `count`.
const fn jump_unless(test: u32, operand: u32, count: u8) -> Instruction {
    Instruction {
        jump_false: count,
        ..op(libc::BPF_JMP | test | libc::BPF_K, operand)
    }
}

const fn give(index: u32) -> Instruction {
    op(libc::BPF_RET | libc::BPF_K, index)
}
