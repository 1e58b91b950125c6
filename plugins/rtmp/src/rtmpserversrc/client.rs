// SPDX-License-Identifier: MPL-2.0
//! One connection, on a thread of its own, from its first byte to its end.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use sfu_access::Pass;

use super::CAT;
use super::feed::{Feed, Stop};
use super::server::{Lease, Shared};
use super::settings::bare;
use super::stats::count;
use super::stream::Stream;
use super::told::Refusal;
use crate::protocol::Misuse;
use crate::protocol::session::{Event, Session};

const HANDSHAKE: Duration = Duration::from_secs(5);
/// From the connection to `publish`.
const PUBLISH: Duration = Duration::from_secs(10);
/// How long a client may leave our answers lying.
const WRITE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(250);
/// How long, and by how much, a refused client may go on: it is to read why, and not to be reset.
const GOODBYE: Duration = Duration::from_secs(1);
const GOODBYE_BYTES: usize = 1 << 20;

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("it is gone")]
    Gone,
    #[error("refused: {0}")]
    Refused(String),
    #[error("cut: {0}")]
    Cut(String),
}

impl From<Misuse> for End {
    fn from(misuse: Misuse) -> Self {
        Self::Cut(misuse.to_string())
    }
}

struct Client<'a> {
    id: u64,
    stream: Stream,
    shared: &'a Arc<Shared>,
    session: Session,
    /// There while it publishes.
    publishing: Option<(Lease, Feed)>,
    /// By which it was let in.
    pass: Option<Pass>,
    /// When it connected, or published last.
    idle_since: Instant,
}

/// Talks with a client until one of both ends it, and counts how.
pub(super) fn serve(id: u64, stream: Stream, shared: &Arc<Shared>) {
    let mut client = Client {
        id,
        stream,
        shared,
        session: Session::new(),
        publishing: None,
        pass: None,
        idle_since: Instant::now(),
    };
    let end = client.run();
    client.settle(Feed::end_picture);
    client.unpublish(&end.to_string());
    let stats = &shared.stats;
    match &end {
        End::Refused(_) => {
            count(&stats.refused);
            client.say_goodbye();
        }
        // What is cut because the element stops, or makes room, is no misuse.
        End::Cut(why) if !shared.stopping.load(Relaxed) => {
            *super::imp::lock(&stats.last_cut) = why.clone();
            count(&stats.cut);
            client.say_goodbye();
        }
        _ => {}
    }
    let _ = client.stream.shutdown(Shutdown::Both);
    gst::info!(CAT, "Client {id}: {end}");
}

impl Client<'_> {
    fn run(&mut self) -> End {
        if self.stream.set_timeouts(TICK, WRITE).is_err() {
            return End::Gone;
        }
        let mut buffer = vec![0; 32 * 1024];
        loop {
            if let Some(why) = self.overdue() {
                return End::Cut(why);
            }
            if self.publishing.is_some() && self.shared.is_kicked(self.id) {
                return self.end_by_application();
            }
            let read = match self.stream.read(&mut buffer) {
                Ok(0) => return End::Gone,
                Ok(read) => read,
                Err(err) => match err.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        self.settle(Feed::silence);
                        continue;
                    }
                    _ => return End::Gone,
                },
            };
            let bytes = &self.shared.stats.bytes;
            bytes.fetch_add(read as u64, Relaxed);
            if let Some((_, feed)) = &mut self.publishing {
                feed.stir();
            }
            let result = self.handle(&buffer[..read]);
            // Also what explains a refusal.
            let output = self.session.take_output();
            let sent = output.is_empty() || self.stream.write_all(&output).is_ok();
            match result {
                Err(end) => return end,
                Ok(()) if !sent => return End::Gone,
                Ok(()) => {}
            }
        }
    }

    /// What the client has not done in time.
    fn overdue(&self) -> Option<String> {
        let timeout = self.shared.settings.timeout();
        if let Some((lease, _)) = &self.publishing {
            let silent = lease.silence() > timeout;
            return silent.then(|| format!("it sent nothing for {timeout:?}"));
        }
        let (limit, what) = match self.session.handshake_done() {
            false => (HANDSHAKE, "it does not finish the handshake"),
            true => (PUBLISH, "it does not publish"),
        };
        (self.idle_since.elapsed() > limit).then(|| what.to_owned())
    }

    fn handle(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.session.feed(bytes)?;
        while let Some(event) = self.session.next()? {
            match event {
                Event::Publish { app, key } => self.publish(&app, &key)?,
                Event::Video { timestamp, data } => {
                    self.media(|feed| feed.video(timestamp, &data))?;
                }
                Event::Audio { timestamp, data } => {
                    self.media(|feed| feed.audio(timestamp, &data))?;
                }
                Event::Unpublished => {
                    self.settle(Feed::end_picture);
                    self.unpublish("it said goodbye");
                }
                Event::Refused(why) => return Err(End::Refused(why.to_owned())),
            }
        }
        Ok(())
    }

    fn publish(&mut self, app: &str, key: &str) -> Result<(), End> {
        if !self.shared.settings.permits(app, key) {
            let why = "There is no such application and stream key.";
            return Err(self.turn_away(Refusal::Permission, why));
        }
        let from = self.stream.peer_addr().map_err(|_| End::Gone)?;
        self.pass = match self.shared.door.admit(from.ip(), key) {
            Ok(pass) => pass,
            Err(why) => {
                let why = format!("Publishing here: {why}.");
                return Err(self.turn_away(Refusal::Permission, &why));
            }
        };
        let Some(lease) = Lease::take(self.shared, self.id, bare(key)) else {
            let why = "Someone else publishes here.";
            return Err(self.turn_away(Refusal::Taken, why));
        };
        self.session.accept()?;
        self.publishing = Some((lease, Feed::new(self.shared, from)));
        count(&self.shared.stats.publishers);
        gst::info!(CAT, "Client {}: publishes from {from}", self.id);
        self.shared
            .announce(true, &format!("published from {from}"));
        Ok(())
    }

    /// It may publish again, if it does so in time.
    fn unpublish(&mut self, why: &str) {
        if let Some((lease, _)) = self.publishing.take() {
            self.idle_since = Instant::now();
            self.shared.announce(false, why);
            drop(lease);
            self.shared.notify();
        }
    }

    fn media(&mut self, push: impl FnOnce(&mut Feed) -> Result<(), Stop>) -> Result<(), End> {
        let Some((lease, feed)) = &mut self.publishing else {
            return Ok(());
        };
        lease.refresh();
        if let Some(pass) = &mut self.pass
            && let Err(why) = self.shared.door.still(pass)
        {
            let why = format!("No longer: {why}.");
            return Err(self.turn_away(Refusal::Permission, &why));
        }
        match push(feed) {
            Ok(()) => Ok(()),
            Err(Stop::Misuse(
                misuse @ (Misuse::Codec(_) | Misuse::Unwanted(_) | Misuse::TooLarge),
            )) => Err(self.turn_away(Refusal::Media, &misuse.to_string())),
            Err(Stop::Misuse(misuse)) => {
                let why = misuse.to_string();
                self.tell(Refusal::Broken, &why);
                self.session.refuse("NetStream.Publish.Rejected", &why)?;
                Err(misuse.into())
            }
            Err(Stop::Ended) => Err(self.refuse("NetStream.Publish.Rejected", "The end.")),
        }
    }

    /// A picture that may have its end still to come goes on as it is. That the pipeline has ended is told with the next message.
    fn settle(&mut self, end: impl FnOnce(&mut Feed) -> Result<(), Stop>) {
        if let Some((_, feed)) = &mut self.publishing {
            let _ = end(feed);
        }
    }

    /// Refuses a publisher, of which the application hears, too.
    fn turn_away(&mut self, refusal: Refusal, why: &str) -> End {
        self.tell(refusal, why);
        let code = match self.publishing {
            Some(_) => "NetStream.Publish.Rejected",
            None => "NetStream.Publish.BadName",
        };
        self.refuse(code, why)
    }

    fn tell(&self, refusal: Refusal, why: &str) {
        let from = self.stream.peer_addr().map(|from| from.to_string());
        let from = from.unwrap_or_else(|_| "that is gone".to_owned());
        self.shared.refused(refusal, &from, why);
    }

    fn refuse(&mut self, code: &str, why: &str) -> End {
        match self.session.refuse(code, why) {
            Ok(()) => End::Refused(why.to_owned()),
            Err(misuse) => misuse.into(),
        }
    }

    /// The client is told. It may come again.
    fn end_by_application(&mut self) -> End {
        let end = self.refuse("NetStream.Publish.Rejected", "The server ended it.");
        let output = self.session.take_output();
        let _ = self.stream.write_all(&output);
        end
    }

    /// Lets a client read its refusal: a socket that is closed over unread bytes is reset.
    fn say_goodbye(&mut self) {
        let (end, mut left) = (Instant::now() + GOODBYE, GOODBYE_BYTES);
        let mut buffer = [0; 4096];
        let _ = self.stream.shutdown(Shutdown::Write);
        while Instant::now() < end && left > 0 && !self.shared.stopping.load(Relaxed) {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => left = left.saturating_sub(read),
                Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
        }
    }
}
