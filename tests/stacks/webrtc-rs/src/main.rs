// SPDX-License-Identifier: MPL-2.0

//! webrtc-rs, a WebRTC stack in Rust: WHIP and WHEP over HTTP, and plain RTP on loopback, from where it gets what it publishes and to
//! where it gives what it plays, as the stacks in stack.mjs.
//!
//! webrtc-rs-peer publish|play URL VIDEO-PORT AUDIO-PORT
//!
//! It runs until it is killed, or until its stdin ends.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use webrtc::api::APIBuilder;
use webrtc::api::interceptor_registry::register_default_interceptors;
use webrtc::api::media_engine::{MIME_TYPE_H264, MIME_TYPE_OPUS, MediaEngine};
use webrtc::interceptor::registry::Registry;
use webrtc::peer_connection::RTCPeerConnection;
use webrtc::peer_connection::configuration::RTCConfiguration;
use webrtc::peer_connection::sdp::session_description::RTCSessionDescription;
use webrtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use webrtc::rtp_transceiver::RTCRtpTransceiverInit;
use webrtc::rtp_transceiver::rtp_codec::{RTCRtpCodecCapability, RTPCodecType};
use webrtc::rtp_transceiver::rtp_transceiver_direction::RTCRtpTransceiverDirection;
use webrtc::track::track_local::TrackLocalWriter;
use webrtc::track::track_local::track_local_static_rtp::TrackLocalStaticRTP;
use webrtc::track::track_remote::TrackRemote;
use webrtc::util::Marshal;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: webrtc-rs-peer publish|play URL VIDEO-PORT AUDIO-PORT";
/// The largest packet.
const PACKET: usize = 2_048;

#[tokio::main(worker_threads = 2)]
async fn main() -> Outcome<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [what, url, video, audio] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let ports = [video.parse()?, audio.parse()?];
    let mut engine = MediaEngine::default();
    engine.register_default_codecs()?;
    let registry = register_default_interceptors(Registry::new(), &mut engine)?;
    let api = APIBuilder::new()
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .build();
    let connection = Arc::new(api.new_peer_connection(RTCConfiguration::default()).await?);
    match what.as_str() {
        "publish" => publish(&connection, ports).await?,
        "play" => play(&connection, ports).await?,
        _ => return Err(USAGE.into()),
    }
    negotiate(&connection, url).await?;
    // Whoever started it is gone when that ends.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Plain RTP that comes to these ports is what it sends.
async fn publish(connection: &RTCPeerConnection, [video, audio]: [u16; 2]) -> Outcome<()> {
    let line = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
    for (kind, port, mime_type, clock_rate, channels, line) in [
        ("video", video, MIME_TYPE_H264, 90_000, 0, line),
        ("audio", audio, MIME_TYPE_OPUS, 48_000, 2, ""),
    ] {
        let codec = RTCRtpCodecCapability {
            mime_type: mime_type.to_owned(),
            clock_rate,
            channels,
            sdp_fmtp_line: line.to_owned(),
            rtcp_feedback: Vec::new(),
        };
        let track = TrackLocalStaticRTP::new(codec, kind.to_owned(), "stream".to_owned());
        let track = Arc::new(track);
        let sender = connection.add_track(track.clone()).await?;
        // What comes back is read for those who answer NACKs and the like.
        tokio::spawn(async move { while sender.read_rtcp().await.is_ok() {} });
        let socket = UdpSocket::bind(("127.0.0.1", port)).await?;
        tokio::spawn(async move {
            let mut packet = [0; PACKET];
            while let Ok(octets) = socket.recv(&mut packet).await {
                // Before it is connected nothing is sent.
                let _ = track.write(&packet[..octets]).await;
            }
        });
    }
    Ok(())
}

/// What comes is plain RTP to these ports.
async fn play(connection: &Arc<RTCPeerConnection>, [video, audio]: [u16; 2]) -> Outcome<()> {
    for kind in [RTPCodecType::Video, RTPCodecType::Audio] {
        let receives = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            send_encodings: Vec::new(),
        };
        connection
            .add_transceiver_from_kind(kind, Some(receives))
            .await?;
    }
    let weak = Arc::downgrade(connection);
    connection.on_track(Box::new(move |track, _, _| {
        let is_video = track.kind() == RTPCodecType::Video;
        let port = if is_video { video } else { audio };
        let (weak, ssrc) = (weak.clone(), track.ssrc());
        if is_video {
            tokio::spawn(async move {
                while let Some(connection) = weak.upgrade() {
                    let request = PictureLossIndication {
                        sender_ssrc: 0,
                        media_ssrc: ssrc,
                    };
                    let _ = connection.write_rtcp(&[Box::new(request)]).await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
        tokio::spawn(async move {
            if let Err(error) = give(&track, port).await {
                eprintln!("{}: {error}", track.kind());
            }
        });
        Box::pin(async {})
    }));
    Ok(())
}

async fn give(track: &TrackRemote, port: u16) -> Outcome<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    loop {
        let (packet, _) = track.read_rtp().await?;
        // Where nobody listens yet, the next one may be heard.
        let _ = socket
            .send_to(&packet.marshal()?, ("127.0.0.1", port))
            .await;
    }
}

/// Sends the offer, with all candidates in it.
async fn negotiate(connection: &RTCPeerConnection, url: &str) -> Outcome<()> {
    let mut gathered = connection.gathering_complete_promise().await;
    let offer = connection.create_offer(None).await?;
    connection.set_local_description(offer).await?;
    let _ = gathered.recv().await;
    let offer = connection.local_description().await.ok_or("no offer")?;
    let answer = post(url, &offer.sdp).await?;
    let answer = RTCSessionDescription::answer(answer)?;
    connection.set_remote_description(answer).await?;
    Ok(())
}

async fn post(url: &str, offer: &str) -> Outcome<String> {
    let rest = url.strip_prefix("http://").ok_or("http alone")?;
    let (host, path) = rest.split_once('/').ok_or("no path")?;
    let mut stream = TcpStream::connect(host).await?;
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{offer}",
        offer.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    if !head.starts_with("HTTP/1.1 201") {
        return Err(format!("{answer}\n{offer}").into());
    }
    Ok(body.to_owned())
}
