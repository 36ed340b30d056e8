//! The introduction of both ends of a connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::config::{ConnSecret, NodeConfig};
use super::connection::{Connection, Member, Told};
use super::event::{CloseReason, PeerLabel};
use super::word::Agreed;
use crate::connector::Dial;
use crate::crypto::PrivateKey;
use crate::features::{Ability, Features};
use crate::native::SessionNumbers;
use crate::overlay::{OverlaySwitch, Params};
use crate::sleeve::LinkId;
use crate::types::{ConnUid, ShortId, Time};
use crate::wire::{Introduced, Wire, WireConfig};

/// Returns the connection to `remote` that was just made, on which the introduction begins.
///
/// Rule: `docs/protocol/mesh.md#3-introduction`.
pub(super) fn open_connection(
    now: Time,
    (remote, dial): (SocketAddr, Option<Dial>),
    secret: ConnSecret,
    (config, short_id): (&NodeConfig, Option<ShortId>),
) -> Connection {
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let subnets = &config.trusted_subnets;
    let trusting =
        !config.require_encryption && subnets.iter().any(|subnet| subnet.contains(&remote.ip()));
    let overlays = config.overlays.iter();
    let mut features = Features {
        name: config.name,
        nickname: config.nickname.clone(),
        uid: config.uid,
        conn_id: secret.conn_id,
        short_id,
        trusted: trusting,
        overlays: Some(overlays.map(|overlay| overlay.name().to_owned()).collect()),
        extra: BTreeMap::new(),
    };
    if config.abilities {
        features.add_abilities(&Ability::ALL);
    }
    let wire = WireConfig {
        min_version: config.min_version,
        max_version: config.max_version,
        ..WireConfig::new(features, config.password.clone())
    };
    let wire = Wire::new(wire, dial.is_some(), PrivateKey::from_secret(secret.key));
    let native = (secret.conn_id, secret.native);
    Connection::new(now, remote, dial, trusting, native, wire).with_confirmation(config.abilities)
}

/// Creates from an introduction what its connection needs to become one to a neighbour.
///
/// Rule: `docs/protocol/mesh.md#3-5-connection-uid`.
pub(super) fn prepare_member(
    connection: &mut Connection,
    introduced: &Introduced,
    (config, numbers): (&NodeConfig, SessionNumbers),
    next_link: impl FnMut() -> LinkId,
) -> Result<Member, CloseReason> {
    let remote = &introduced.remote;
    let trusted = connection.trusting && remote.trusted;
    let uid = ConnUid(connection.conn_id ^ remote.conn_id);
    let params = Params {
        us: config.name,
        peer: remote.name,
        uid,
        remote: connection.remote,
        dialled: connection.dial.is_some(),
        session_key: introduced.session_key.clone(),
        trusted,
        sealed_only: config.require_encryption,
        quiet: config.abilities && remote.can(Ability::Quiet),
        transcript: introduced.transcript,
        secret: connection.native.take(),
        ciphers: config.ciphers,
        numbers,
        key_life: config.key_life,
    };
    let key = params.sleeve_key().cloned();
    let offered = remote.overlays.as_deref();
    let overlay = OverlaySwitch::prepare(&config.overlays, offered, params, next_link)?;
    Ok(Member {
        peer: remote.name,
        peer_uid: remote.uid,
        label: PeerLabel::new(remote.name, &remote.nickname),
        uid,
        version: introduced.version,
        encrypted: introduced.session_key.is_some(),
        key,
        trusted,
        has_digests: config.abilities && remote.can(Ability::Digests),
        remote_overlays: remote.overlays.clone().unwrap_or_default().into(),
        agreed: match config.abilities {
            true => Agreed::with(remote),
            false => Agreed::default(),
        },
        overlay,
        told: Told::default(),
    })
}
