//! What shows that nobody uses an address any more.

/// What shows that the user of an address is gone. Nothing frees an address without: that
/// somebody was not seen is no proof that he is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Its network namespace has ended, and with it all that used the address.
    NamespaceEnded,
    /// Its endpoint was deleted by whoever made it.
    EndpointDeleted,
    /// Its container was removed for good.
    ContainerDestroyed,
    /// The one that has it gave it back.
    GivenBack,
    /// This host leaves the mesh, and with it all that runs here.
    HostRemoved,
}
