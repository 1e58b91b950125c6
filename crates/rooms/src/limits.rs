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
    /// Data tracks that a participant publishes.
    pub data_tracks: usize,
    /// Data tracks that a participant has subscribed to: all are named to it whenever one comes or goes.
    pub data_subscriptions: usize,
    /// A datagram of a data track.
    pub datagram: usize,
    /// Tracks that a participant gets at a time, or got at a time: each is an m-line for good.
    pub offered: usize,
    /// Times that somebody may join at once: more wait two seconds each.
    pub joins: u32,
    /// A participant's metadata; all keys and values of its attributes together.
    pub metadata: usize,
    /// Metadata, attributes and names of data tracks of all participants of a room together: who joins is told all of them.
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
            data_tracks: 32,
            data_subscriptions: 1_024,
            // Clients cut frames into datagrams of 16,000.
            datagram: 16 * 1_024,
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
