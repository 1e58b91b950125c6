// SPDX-License-Identifier: MPL-2.0

//! What clients may make grow.

/// See the module's description. Texts are counted in octets.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rooms at a time.
    pub rooms: usize,
    /// Participants of a room.
    pub participants: usize,
    /// Tracks that a participant publishes or has announced.
    pub tracks: usize,
    /// Tracks that a participant gets at a time, or got at a time: each is an m-line for good.
    pub offered: usize,
    /// Times that somebody may join at once: more wait two seconds each.
    pub joins: u32,
    /// A participant's metadata; all keys and values of its attributes together.
    pub metadata: usize,
    /// Metadata and attributes of all participants of a room together: who joins is told all of them.
    pub texts: usize,
    /// A participant's identity or name, and a room's name.
    pub name: usize,
    /// A message of a client.
    pub message: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rooms: 1_000,
            participants: 1_000,
            tracks: 16,
            // The engine has 256 m-lines of a peer, of which one is for data.
            offered: 255,
            joins: 20,
            // LiveKit's own.
            metadata: 64 * 1_024,
            texts: 2 * 1_024 * 1_024,
            name: 256,
            message: 640 * 1_024,
        }
    }
}
