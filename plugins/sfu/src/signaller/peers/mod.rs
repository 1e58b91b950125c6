// SPDX-License-Identifier: MPL-2.0

//! The signalling of GStreamer's own WebRTC elements (`gst-plugin-webrtc-signalling-protocol`) at `/gst-webrtc`: an unmodified
//! `webrtcsink` publishes here, `webrtcsrc` and the page library `gstwebrtc-api` play from here.
//!
//! Their server hands messages from peer to peer. Here the server is each one's peer: a producer gets one consumer, which asks
//! it for an offer, and each live stream that may be played is a producer, whose name is its identifier. What is said is
//! in `peer.rs`; this file has the WebSocket.

mod live;
mod peer;

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use gst_plugin_webrtc_signalling_protocol::{IncomingMessage, OutgoingMessage};
use tokio::time::{Instant, sleep_until};

use super::CAT;
use super::address::Client;
use super::door::Pass;
use super::limits;
use super::server::{App, Refusal};
use super::websocket::{Ended, Message, Socket, Upgrade};
pub(super) use live::Live;
use peer::Peer;

/// How often it is looked which sessions have ended, and for who listens, which streams there are.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Messages that are none, after which nothing more is read.
const NONSENSE: u32 = 20;

/// `GET /gst-webrtc`
pub(super) async fn join(
    State(app): State<App>,
    Client(address): Client,
    pass: Pass,
    upgrade: Result<Upgrade, Refusal>,
) -> Response {
    begin(app, |app| Peer::new(app, address, pass, None), upgrade)
}

/// `GET /gst-webrtc/{stream}`: what a producer sends is that stream.
pub(super) async fn join_as(
    State(app): State<App>,
    Client(address): Client,
    pass: Pass,
    Path(stream): Path<String>,
    upgrade: Result<Upgrade, Refusal>,
) -> Response {
    begin(
        app,
        |app| Peer::new(app, address, pass, Some(stream)),
        upgrade,
    )
}

fn begin(app: App, peer: impl FnOnce(App) -> Peer, upgrade: Result<Upgrade, Refusal>) -> Response {
    if app.drain.is_on() {
        app.measures.refused("draining");
        let message = "this server is about to end and takes nobody any more";
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message);
        return refusal.with(header::RETRY_AFTER, "10").into_response();
    }
    match upgrade {
        Ok(upgrade) => {
            let peer = peer(app);
            upgrade.begin(limits::BODY_MAX, move |socket| talk(socket, peer))
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Until either side has enough.
async fn talk(mut socket: Socket, mut peer: Peer) {
    let mut look = Instant::now() + LOOK_EVERY;
    let mut nonsense = 0;
    let (code, why) = loop {
        for message in peer.told() {
            if say(&mut socket, &message).await.is_err() {
                return;
            }
        }
        if let Some(goodbye) = peer.goodbye() {
            break goodbye;
        }
        socket.set_in_use(peer.is_in_use());
        tokio::select! {
            () = sleep_until(look) => {
                look = Instant::now() + LOOK_EVERY;
                peer.look().await;
            }
            said = socket.next() => match said {
                Ok(Message::Text(text)) => match serde_json::from_str::<IncomingMessage>(&text) {
                    Ok(message) => peer.hear(message).await,
                    Err(error) => {
                        nonsense += 1;
                        if nonsense >= NONSENSE {
                            break (1008, "too many messages that are none");
                        }
                        peer.refuse(format!("that is no message: {error}"));
                    }
                },
                Ok(Message::Binary(_)) => break (1003, "messages are text"),
                Err(ended) => {
                    gst::debug!(CAT, "a peer's connection ends: {ended:?}");
                    break ended.goodbye();
                }
            },
        }
    };
    drop(peer);
    socket.close(code, why).await;
}

async fn say(socket: &mut Socket, message: &OutgoingMessage) -> Result<(), Ended> {
    let text = serde_json::to_string(message).map_err(|_| Ended::Broken)?;
    socket.send(Message::Text(text.into())).await
}
