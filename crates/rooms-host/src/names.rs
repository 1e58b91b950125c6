// SPDX-License-Identifier: MPL-2.0

//! Under which names participants are streams: `ROOM/IDENTITY`, `ROOM/IDENTITY/screen`, `ROOM/IDENTITY/TR_…`.
//!
//! Rooms and identities may be any text, streams may not: who can't be named so has its participant's sid for a name. The same
//! where the name is taken.

use sfu_engine::{Codec, StreamName};
use sfu_rooms::Sid;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Names {
    /// `ROOM/IDENTITY`, where that is a name, and the sid.
    own: Vec<String>,
    pub(crate) publisher: StreamName,
    /// As who only listens is listed: by the room.
    pub(crate) listener: StreamName,
}

/// What of a participant is one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its camera and microphone.
    Camera,
    /// Its screen and the sound of that.
    Screen,
    /// One more track.
    Track(Sid),
    /// A track in a further codec.
    Codec(Sid, Codec),
}

impl Names {
    pub(crate) fn new(room: &str, identity: &str, sid: &Sid) -> Option<Self> {
        // A slash would make parts where the application has seen none.
        let is_part = |text: &str| !text.contains('/');
        let named = format!("{room}/{identity}");
        let is_named = is_part(room) && is_part(identity) && named.parse::<StreamName>().is_ok();
        let mut own = vec![sid.to_string()];
        if is_named {
            own.insert(0, named);
        }
        let publisher = own.first()?.parse().ok()?;
        let listener = match is_named {
            true => room.parse().ok()?,
            false => sid.as_str().parse().ok()?,
        };
        Some(Self {
            own,
            publisher,
            listener,
        })
    }

    /// The best first.
    pub(crate) fn of(&self, part: &Part) -> Vec<StreamName> {
        let name = |own: &String| match part {
            Part::Camera => own.parse().ok(),
            Part::Screen => format!("{own}/screen").parse().ok(),
            Part::Track(track) => format!("{own}/{track}").parse().ok(),
            Part::Codec(track, codec) => {
                let codec = codec.name().to_lowercase();
                format!("{own}/{track}-{codec}").parse().ok()
            }
        };
        self.own.iter().filter_map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_room_and_an_identity_are_there_is_a_name() {
        let sid: Sid = Sid::participant();
        let long = "x".repeat(65);
        for (room, identity, named) in [
            ("r", "ann", true),
            ("r.1", "ann_b-c", true),
            ("r", "Ann B", false),
            ("ä", "ann", false),
            ("r", "", false),
            ("a/b", "ann", false),
            ("r", "a/b", false),
            ("r", "..", false),
            ("whip", "ann", false),
            ("r", &long, false),
        ] {
            let names = Names::new(room, identity, &sid).unwrap();
            let own = if named {
                format!("{room}/{identity}")
            } else {
                sid.to_string()
            };
            assert_eq!(names.publisher.as_str(), own, "{room} {identity}");
            let track = Sid::participant();
            for (part, end) in [
                (Part::Camera, String::new()),
                (Part::Screen, "/screen".into()),
                (Part::Track(track.clone()), format!("/{track}")),
                (
                    Part::Codec(track.clone(), Codec::Vp8),
                    format!("/{track}-vp8"),
                ),
            ] {
                let all = names.of(&part);
                assert_eq!(all[0].as_str(), format!("{own}{end}"));
                let last = format!("{sid}{end}");
                assert_eq!(all.last().unwrap().as_str(), last, "always free");
            }
        }
    }
}
