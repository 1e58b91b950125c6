// SPDX-License-Identifier: MPL-2.0

//! Who may have a participant's tracks, as it says. Looked up for each track and subscriber, so by name.

use std::collections::{BTreeSet, HashMap};

use livekit_protocol::SubscriptionPermission;

use crate::limits::Limits;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Allowed {
    everybody: bool,
    by_sid: HashMap<String, Tracks>,
    by_identity: HashMap<String, Tracks>,
}

#[derive(Debug, Default)]
struct Tracks {
    all: bool,
    some: BTreeSet<String>,
}

impl Default for Allowed {
    fn default() -> Self {
        Self {
            everybody: true,
            by_sid: HashMap::new(),
            by_identity: HashMap::new(),
        }
    }
}

impl Allowed {
    /// As it is told. What is beyond the limits is not allowed: as many participants as a room may have, as many tracks of each as
    /// one may have, and names of as many octets as metadata may have.
    pub(super) fn new(said: SubscriptionPermission, limits: &Limits) -> Self {
        let mut this = Self {
            everybody: said.all_participants,
            ..Self::default()
        };
        let mut room = limits.metadata;
        let mut has_room = |octets: usize| {
            let left = room.checked_sub(octets);
            room = left.unwrap_or(room);
            left.is_some()
        };
        for permission in said.track_permissions.into_iter().take(limits.participants) {
            let (sid, identity) = (permission.participant_sid, permission.participant_identity);
            for (by, name) in [(&mut this.by_sid, sid), (&mut this.by_identity, identity)] {
                if name.is_empty() || name.len() > limits.name || !has_room(name.len()) {
                    continue;
                }
                let tracks = by.entry(name).or_default();
                tracks.all |= permission.all_tracks;
                for track in permission.track_sids.iter().take(limits.tracks) {
                    if tracks.some.len() < limits.tracks && has_room(track.len()) {
                        tracks.some.insert(track.clone());
                    }
                }
            }
        }
        this
    }

    pub(super) fn has(&self, sid: &str, identity: &str, track: &str) -> bool {
        let known = [self.by_sid.get(sid), self.by_identity.get(identity)];
        let mut known = known.into_iter().flatten();
        self.everybody || known.any(|tracks| tracks.all || tracks.some.contains(track))
    }

    #[cfg(test)]
    fn octets(&self) -> usize {
        let all = self.by_sid.iter().chain(&self.by_identity);
        let size = |(name, tracks): (&String, &Tracks)| {
            name.len() + tracks.some.iter().map(String::len).sum::<usize>()
        };
        all.map(size).sum()
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::TrackPermission;

    use super::*;

    fn one(sid: &str, identity: &str, all_tracks: bool, tracks: &[&str]) -> TrackPermission {
        TrackPermission {
            participant_sid: sid.into(),
            participant_identity: identity.into(),
            all_tracks,
            track_sids: tracks.iter().map(|sid| (*sid).to_owned()).collect(),
        }
    }

    fn some(track_permissions: Vec<TrackPermission>) -> Allowed {
        let said = SubscriptionPermission {
            all_participants: false,
            track_permissions,
        };
        Allowed::new(said, &Limits::default())
    }

    #[test]
    fn who_is_named_by_either_name_has_what_is_named() {
        assert!(Allowed::default().has("PA_1", "ann", "TR_1"));
        let allowed = some(vec![
            one("PA_1", "", true, &[]),
            one("", "ben", false, &["TR_1"]),
            one("", "ben", false, &["TR_2"]),
            one("", "", true, &[]),
        ]);
        for (sid, identity, track, has) in [
            ("PA_1", "x", "TR_9", true),
            ("PA_2", "ben", "TR_1", true),
            ("PA_2", "ben", "TR_2", true),
            ("PA_2", "ben", "TR_3", false),
            ("PA_3", "carl", "TR_1", false),
            ("PA_3", "", "TR_1", false),
            // A name of the one kind is none of the other.
            ("PA_2", "PA_1", "TR_1", false),
            ("ben", "x", "TR_1", false),
        ] {
            assert_eq!(
                allowed.has(sid, identity, track),
                has,
                "{sid} {identity} {track}"
            );
        }
    }

    #[test]
    fn what_is_kept_is_bounded_however_much_is_named() {
        let limits = Limits::default();
        let long = "x".repeat(limits.name + 1);
        let sids: Vec<_> = (0..9_999).map(|n| format!("TR_{n}")).collect();
        let sids: Vec<_> = sids.iter().map(String::as_str).collect();
        for all in [
            (0..99_999)
                .map(|n| one("", &n.to_string(), true, &[]))
                .collect::<Vec<_>>(),
            (0..9)
                .map(|n| one("", &n.to_string(), false, &sids))
                .collect(),
            (0..999)
                .map(|_| one("PA_1", "ann", false, &sids[..99]))
                .collect(),
            vec![one("", &long, true, &[]); 9],
            vec![one("", "ann", false, &[&"x".repeat(limits.metadata)]); 9],
        ] {
            let allowed = some(all);
            let names = allowed.by_sid.len() + allowed.by_identity.len();
            assert!(names <= limits.participants, "{names}");
            assert!(allowed.octets() <= limits.metadata);
            let each = allowed.by_sid.values().chain(allowed.by_identity.values());
            assert!(each.into_iter().all(|t| t.some.len() <= limits.tracks));
        }
    }
}
