//! What happens in the mesh, in the log.

use proto::node::{Event, Level};

use super::control::Control;

impl Control {
    pub(super) fn log(&mut self, event: &Event) {
        let is_stranger = matches!(
            event,
            Event::Closed {
                peer: None,
                outbound: false,
                ..
            }
        );
        match event.level() {
            Level::Warn if is_stranger => {
                let (logged, left_out) = self.strangers.refused(self.now());
                if left_out > 0 {
                    tracing::warn!(left_out, "more connections were refused before");
                }
                if logged {
                    tracing::warn!("{event}");
                } else {
                    tracing::debug!("{event}");
                }
            }
            Level::Warn => tracing::warn!("{event}"),
            Level::Info => tracing::info!("{event}"),
            Level::Debug => tracing::debug!("{event}"),
        }
    }
}
