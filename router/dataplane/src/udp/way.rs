//! Ways by which a datagram leaves.

use proto::sleeve::Channel;

/// Ways by which a datagram leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Not to be fragmented; refused if it exceeds what the kernel knows of the path.
    Df,
    /// To be fragmented if need be.
    NonDf,
    /// Not to be fragmented; refused only if it exceeds what the device takes. For the native
    /// overlay, which finds out for itself what a path takes.
    Native,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 3] = [Way::Df, Way::NonDf, Way::Native];
}

impl From<Channel> for Way {
    fn from(channel: Channel) -> Way {
        match channel {
            Channel::Df => Way::Df,
            Channel::NonDf => Way::NonDf,
        }
    }
}
