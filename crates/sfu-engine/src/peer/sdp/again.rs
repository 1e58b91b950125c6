// SPDX-License-Identifier: MPL-2.0

//! Later offers on a connection (RFC 3264, section 8; RFC 9429, section 5.2.2): m-lines keep their places and names, one that
//! was given up may be used for another, and the way to the peer stays as it is, unless ICE begins anew.

use is::IceCreds;

use super::choice::Plan;
use super::error::{OfferError, shown};
use super::ice::credentials;
use super::offer::Offer;
use super::session::Origin;
use crate::transport::lean::agreed::Agreed;

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    /// Without formats.
    connection: Agreed,
    origin: Origin,
    lines: Vec<Line>,
}

/// An m-line as it was last.
#[derive(Debug, Clone)]
struct Line {
    mid: String,
    name: String,
    is_given_up: bool,
}

/// ICE begins anew: the peer's credentials, and ours.
#[derive(Debug, Clone)]
pub(crate) struct Restart {
    pub(crate) remote: IceCreds,
    pub(crate) local: IceCreds,
}

impl Before {
    pub(super) fn new(
        offer: &Offer<'_>,
        plan: &Plan<'_, '_>,
        connection: Agreed,
        origin: Origin,
    ) -> Self {
        Self {
            connection,
            origin,
            lines: lines(offer, plan),
        }
    }

    /// What is told of us.
    pub(super) fn ours(&self) -> (&Agreed, Origin) {
        (&self.connection, self.origin)
    }

    /// Another offer is answered. Where it can't be, nothing has changed.
    pub(super) fn next(
        &mut self,
        offer: &Offer<'_>,
        plan: &Plan<'_, '_>,
    ) -> Result<Option<Restart>, OfferError> {
        self.check(offer)?;
        let restart = match plan.rejects_all() {
            false => self.restart(plan)?,
            // All is given up.
            true => None,
        };
        if let Some(Restart { remote, local }) = &restart {
            self.connection.remote = remote.clone();
            self.connection.local = local.clone();
        }
        self.lines = lines(offer, plan);
        self.origin.version += 1;
        Ok(restart)
    }

    fn check(&self, offer: &Offer<'_>) -> Result<(), OfferError> {
        if offer.medias.len() < self.lines.len() {
            let why = format!(
                "it has {} m-lines where there were {}: one that is not needed stays, with port 0 or a=inactive \
                 (RFC 3264, section 8)",
                offer.medias.len(),
                self.lines.len()
            );
            return Err(OfferError::unacceptable(why));
        }
        for (line, media) in self.lines.iter().zip(&offer.medias) {
            let mid = media.mid.unwrap_or_default();
            if !line.is_given_up && (mid, media.name) != (&*line.mid, &*line.name) {
                let why = format!(
                    "its {} m-line with a=mid {} stands where {} with {} was: m-lines keep their places and names \
                     (RFC 9429, section 5.2.2)",
                    shown(media.name),
                    shown(mid),
                    shown(&line.name),
                    shown(&line.mid)
                );
                return Err(OfferError::unacceptable(why));
            }
        }
        Ok(())
    }

    fn restart(&self, plan: &Plan<'_, '_>) -> Result<Option<Restart>, OfferError> {
        let (remote, fingerprints, _) = plan.transport.agree()?;
        let mut known = self.connection.fingerprints.iter();
        if !known.any(|f| fingerprints.contains(f)) {
            return Err(OfferError::unacceptable(
                "its certificate is another one (a=fingerprint): begin another session with it",
            ));
        }
        if remote == self.connection.remote {
            return Ok(None);
        }
        let local = credentials()?;
        Ok(Some(Restart { remote, local }))
    }
}

fn lines(offer: &Offer<'_>, plan: &Plan<'_, '_>) -> Vec<Line> {
    let all = offer.medias.iter().enumerate();
    let all = all.map(|(at, media)| Line {
        mid: media.mid.unwrap_or_default().to_owned(),
        name: media.name.to_owned(),
        is_given_up: plan.rejects(at),
    });
    all.collect()
}
