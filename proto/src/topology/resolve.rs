//! Where the far ends of connections stand among all peers.

use std::cmp::Ordering;

use super::update::Connection;
use crate::types::PeerName;

/// Calls `each` for every connection with the index of its remote in `names`, if any. Both must be
/// sorted by name.
pub(crate) fn resolve<'c>(
    names: &[PeerName],
    connections: &'c [Connection],
    mut each: impl FnMut(Option<usize>, &'c Connection),
) {
    let mut start = 0;
    for connection in connections {
        let found = find_from(names, start, connection.remote);
        start = found.map_or_else(|next| next, |index| index + 1);
        each(found.ok(), connection);
    }
}

/// Returns the position of `name` in `names`, or where it would be inserted, not before `start`.
///
/// Names are close together in a full list and far apart in a sparse one, so the step doubles until
/// it has passed the name.
fn find_from(names: &[PeerName], start: usize, name: PeerName) -> Result<usize, usize> {
    let (mut low, mut high, mut step) = (start, start, 1);
    loop {
        match names.get(high).map(|known| known.cmp(&name)) {
            Some(Ordering::Equal) => return Ok(high),
            Some(Ordering::Less) => {
                low = high + 1;
                high += step;
                step *= 2;
            }
            Some(Ordering::Greater) | None => break,
        }
    }
    let high = high.min(names.len());
    let found = names[low..high].binary_search(&name);
    found
        .map(|offset| low + offset)
        .map_err(|offset| low + offset)
}
