// SPDX-License-Identifier: MPL-2.0
//! Makes whole pictures of a publisher's messages, also where it sends each NAL unit in one of its own, for
//! `rtmpserversrc/feed.rs`.
//!
//! Where a picture ends is told by the message after it alone. So that this costs nobody else a frame of delay, a publisher's
//! first picture waits for that message, and the others do where some picture came in several.

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::chunks::MAX_MESSAGE;
use super::units::{Role, Units};

/// More than the slices of a picture of 4096x2304 that are as short as a packet of a network.
const MAX_MESSAGES: u32 = 2_048;
/// What may wait for the next picture: parameter sets and SEI.
const MAX_BEFORE: usize = 64 * 1024;
/// A picture ends where the sound has gone on for so long since it began, in ms: some encoders' sound is ahead of their pictures, and
/// comes between the parts of one.
const SOUND_LATER: i32 = 100;
/// How often nothing may come for a while until a picture ends, where some came in several messages: a network may rest.
const RESTS: u8 = 8;
/// The same while that is not known.
const FIRST_RESTS: u8 = 2;

/// A picture, or what of it one message brings; or a frame of sound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) timestamp: u32,
    /// How much later than decoded it is shown, in ms.
    pub(crate) offset: i32,
    pub(crate) keyframe: bool,
    /// The running time when the first of it came, in ns, if there was any.
    pub(crate) came: Option<u64>,
    pub(crate) data: Bytes,
}

/// A picture is not whole, and can't be made so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost;

/// How a publisher sends its pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Habit {
    #[default]
    Unknown,
    /// Each in one message, as far as it has been seen.
    Whole,
    /// Some in several.
    Parts,
}

/// A picture that may go on.
#[derive(Debug)]
struct Held {
    frame: Frame,
    /// What came after its first message.
    rest: Vec<u8>,
    messages: u32,
    /// How often nothing has come for a while.
    rested: u8,
    /// The last sound when it began.
    heard: Option<u32>,
}

impl Held {
    fn has_room(&self, octets: usize) -> bool {
        let all = self.frame.data.len() + self.rest.len() + octets;
        self.messages < MAX_MESSAGES && all <= MAX_MESSAGE
    }

    fn joined(self) -> Frame {
        let mut frame = self.frame;
        if !self.rest.is_empty() {
            frame.data = [&frame.data[..], &self.rest].concat().into();
        }
        frame
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    habit: Habit,
    held: Option<Held>,
    /// Units that go in front of the next picture.
    before: Vec<u8>,
    /// The timestamp of the last picture, whatever became of it.
    last: Option<u32>,
    /// And of the last sound.
    heard: Option<u32>,
}

impl Pictures {
    /// Takes a message that is whole, and gives the pictures that go on now. `ended_by` comes first.
    pub(crate) fn take(&mut self, frame: Frame, units: Units) -> Result<[Option<Frame>; 2], Lost> {
        match units.role {
            Role::Apart => {
                self.keep(&units.for_the_next(&frame.data));
                Ok([None, None])
            }
            Role::Continues if self.goes_on(frame.timestamp) => {
                self.add(&frame, units)?;
                Ok([None, None])
            }
            Role::Begins | Role::Continues => Ok([self.end(), self.begin(frame, units)]),
        }
    }

    /// Whether later slices are of a picture that is here, or was.
    fn goes_on(&self, timestamp: u32) -> bool {
        self.habit == Habit::Parts || self.last == Some(timestamp)
    }

    fn keep(&mut self, units: &[u8]) {
        if self.before.len() + units.len() > MAX_BEFORE {
            self.before.clear();
        }
        if units.len() <= MAX_BEFORE {
            self.before.extend_from_slice(units);
        }
    }

    fn add(&mut self, frame: &Frame, units: Units) -> Result<(), Lost> {
        self.habit = Habit::Parts;
        let held = self.held.as_mut();
        let Some(held) = held.filter(|held| held.has_room(frame.data.len())) else {
            self.held = None;
            return Err(Lost);
        };
        held.frame.keyframe |= frame.keyframe;
        held.rest.extend(units.for_the_same(&frame.data));
        held.messages += 1;
        Ok(())
    }

    fn begin(&mut self, mut frame: Frame, units: Units) -> Option<Frame> {
        self.last = Some(frame.timestamp);
        let before = std::mem::take(&mut self.before);
        if !before.is_empty() && before.len() + frame.data.len() <= MAX_MESSAGE {
            let (delimiter, picture) = frame.data.split_at(units.front(&frame.data));
            frame.data = [delimiter, &before, picture].concat().into();
        }
        if self.habit == Habit::Whole {
            return Some(frame);
        }
        self.held = Some(Held {
            frame,
            rest: Vec::new(),
            messages: 1,
            rested: 0,
            heard: self.heard,
        });
        None
    }

    /// Nothing more comes of the picture that is held.
    pub(crate) fn end(&mut self) -> Option<Frame> {
        let held = self.held.take()?;
        if self.habit == Habit::Unknown {
            self.habit = Habit::Whole;
        }
        Some(held.joined())
    }

    /// The picture that ends since a video message has another timestamp.
    pub(crate) fn ended_by(&mut self, timestamp: u32) -> Option<Frame> {
        let held = self.held.as_ref()?;
        (held.frame.timestamp != timestamp).then(|| self.end())?
    }

    /// The picture that ends since sound has gone on.
    pub(crate) fn ended_by_sound(&mut self, timestamp: u32) -> Option<Frame> {
        self.heard = Some(timestamp);
        let held = self.held.as_mut()?;
        let since = *held.heard.get_or_insert(timestamp);
        let later = timestamp.wrapping_sub(since).cast_signed();
        (later >= SOUND_LATER).then(|| self.end())?
    }

    /// Something comes, if not yet a whole message.
    pub(crate) fn stir(&mut self) {
        if let Some(held) = &mut self.held {
            held.rested = 0;
        }
    }

    /// The picture that ends since nothing came, again and again.
    pub(crate) fn ended_by_silence(&mut self) -> Option<Frame> {
        let most = match self.habit {
            Habit::Parts => RESTS,
            Habit::Unknown | Habit::Whole => FIRST_RESTS,
        };
        let held = self.held.as_mut()?;
        held.rested += 1;
        (held.rested >= most).then(|| self.end())?
    }

    /// A message with this timestamp is broken: its picture has a hole.
    pub(crate) fn discard(&mut self, timestamp: u32) {
        self.held = None;
        self.last = Some(timestamp);
    }

    /// Units that came under another header fit no more.
    pub(crate) fn forget_units(&mut self) {
        self.before.clear();
    }
}
