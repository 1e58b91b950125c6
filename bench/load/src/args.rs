// SPDX-License-Identifier: MPL-2.0

//! The command line: what can be asked of the tool, and the units in which it is asked. Read by `main`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sfu_impair::Conditions;

const ABOUT: &str =
    "Plays many WHEP viewers, a WHIP publisher, or both, and measures what arrives.";
const AFTER: &str = "\
Viewers are lean: ICE, DTLS, SRTP and RTCP (reports, NACK, PLI, transport-wide feedback) are real, but there is no
decoder. All viewers check sequence numbers, timestamps and markers, which are in the clear. Payloads are decrypted
until the first keyframe is whole, and after that only by the share of viewers given with --sample, which also
measures the forward delay (of a stream that this tool publishes on the same machine); the JSON says how many they
were in viewers_decrypted. Retransmissions are decrypted by all.

CPU of --pid and packet rates are counted over the steady part only: when all have joined, for --duration.
Exit status: 0, or 1 where a viewer got no picture, or 2 for wrong arguments.

Units: --bitrate and --rate 2500k or 2.5M (bit/s); --delay, --jitter, --queue and --duration 20ms or 60s; --loss,
--reorder and --sample 2% or 0.02; --burst 4; --ramp 100/s.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "sfu-load", version, about = ABOUT, after_help = AFTER, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Another thing to do than to play viewers.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Viewers and publisher.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// The other things that the tool does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Forward UDP through a bad link; prints "listening on ADDR" first. A line of the same options on stdin changes it
    Proxy(ProxyArgs),
    /// Send the generated stream as plain RTP to a UDP port, as Janus' streaming plugin takes it
    Rtp(RtpArgs),
}

/// Viewers and publisher.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// WHEP endpoint to watch
    #[arg(long, value_name = "URL")]
    pub whep: Option<String>,
    /// Janus' HTTP API to watch through instead, such as http://HOST:8088/janus
    #[arg(long, value_name = "URL", conflicts_with = "whep")]
    pub janus: Option<String>,
    /// The mountpoint of Janus' streaming plugin
    #[arg(long, default_value_t = 1, requires = "janus")]
    pub mountpoint: u64,
    /// Server of a room by LiveKit's protocol to join instead, such as http://HOST:8080: --publishers publish, and --viewers only get
    /// what there is
    #[arg(long, value_name = "URL", conflicts_with_all = ["whep", "janus", "whip", "joins"])]
    pub room: Option<String>,
    /// The room's name
    #[arg(long, default_value = "load", requires = "room")]
    pub room_name: String,
    /// What signs the participants' tokens
    #[arg(long, value_name = "KEY:SECRET", requires = "room")]
    pub api_key: Option<String>,
    /// How many participants of a room publish the generated stream
    #[arg(long, default_value_t = 1, requires = "room")]
    pub publishers: usize,
    /// The size of pictures that a room's participants ask for
    #[arg(long, value_enum, default_value_t = Pictures::Full, requires = "room")]
    pub pictures: Pictures,
    /// WHIP endpoint to publish the generated stream to
    #[arg(long, value_name = "URL")]
    pub whip: Option<String>,
    /// Publish and watch so many streams, which are called as in the URLs with -1, -2 and so on behind; viewers are
    /// spread over them
    #[arg(long, default_value_t = 1, conflicts_with = "janus", value_parser = clap::value_parser!(u16).range(1..))]
    pub streams: u16,
    /// Offer no audio (WHEP)
    #[arg(long)]
    pub video_only: bool,
    /// How many viewers there are
    #[arg(long, default_value_t = 1)]
    pub viewers: usize,
    /// How many viewers join in a second
    #[arg(long, default_value = "100/s", value_parser = rate_per_second)]
    pub ramp: f64,
    /// When that is over, this many more viewers come in a second, and each leaves when it has a picture; those who stay
    /// are looked at for what they miss
    #[arg(long, value_name = "RATE", value_parser = rate_per_second)]
    pub joins: Option<f64>,
    /// How many of them come in all
    #[arg(long, default_value_t = 500, requires = "joins")]
    pub join_count: usize,
    /// How long it lasts once all have joined
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub json: bool,
    /// The server's process, whose CPU time and memory are measured
    #[arg(long, value_name = "SERVER")]
    pub pid: Option<u32>,
    /// The share of viewers that decrypt all; without it 10 %, at least 5, and all of up to 20
    #[arg(long, value_parser = share)]
    pub sample: Option<f64>,
    /// Threads that the viewers' media share
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Seed of the simulated links; viewers differ from each other
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The simulated link of each viewer.
    #[command(flatten)]
    pub link: LinkArgs,
    /// The published stream.
    #[command(flatten)]
    pub stream: StreamArgs,
}

/// Which pictures a participant of a room wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pictures {
    /// All in full size
    Full,
    /// The first publisher's in full size, and small ones of all others
    Stage,
    /// Small ones of all
    Small,
}

/// What the generated stream is like.
#[derive(Debug, Clone, Copy, Args)]
pub struct StreamArgs {
    /// Simulcast layers of the published stream
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub layers: u8,
    /// Bitrate of the highest layer; each lower one has 2/7 of it and half the height
    #[arg(long, default_value = "2500k", value_parser = bits)]
    pub bitrate: u64,
    /// Time between keyframes where nobody asks for one
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub keyframe_interval: Duration,
    /// Publish audio, too (WHIP): Opus packets of 20 ms and 32 kbit/s
    #[arg(long)]
    pub audio: bool,
    /// Publish audio alone (in a room)
    #[arg(long)]
    pub sound_only: bool,
}

impl StreamArgs {
    pub fn has_audio(&self) -> bool {
        self.audio || self.sound_only
    }
}

/// A simulated link.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct LinkArgs {
    /// Share of datagrams lost, in both directions
    #[arg(long, value_parser = share)]
    pub loss: Option<f64>,
    /// How many datagrams in a row are lost on average, for the same share in all; up to 1 each by itself [default: 1]
    #[arg(long, value_name = "LENGTH", value_parser = number)]
    pub burst: Option<f64>,
    /// Share of datagrams that others overtake
    #[arg(long, value_parser = share)]
    pub reorder: Option<f64>,
    /// How much later these arrive [default: 20ms]
    #[arg(long, value_parser = duration)]
    pub reorder_by: Option<Duration>,
    /// Delay of one way
    #[arg(long, value_parser = duration)]
    pub delay: Option<Duration>,
    /// Random time between zero and this added to the delay; the order stays
    #[arg(long, value_parser = duration)]
    pub jitter: Option<Duration>,
    /// Rate of the bottleneck from the server to the viewer
    #[arg(long, value_parser = bits)]
    pub rate: Option<u64>,
    /// The longest wait before the bottleneck [default: 300ms]
    #[arg(long, value_parser = duration)]
    pub queue: Option<Duration>,
}

impl LinkArgs {
    /// Whether the link does anything to datagrams.
    pub fn is_perfect(&self) -> bool {
        let Self {
            loss,
            reorder,
            delay,
            jitter,
            rate,
            ..
        } = self;
        loss.is_none() && reorder.is_none() && delay.is_none() && jitter.is_none() && rate.is_none()
    }

    /// The way from the server to the viewer.
    pub fn down(&self) -> Conditions {
        let perfect = Conditions::default();
        Conditions {
            loss: self.loss.unwrap_or_default(),
            burst: self.burst.unwrap_or(perfect.burst),
            reorder: self.reorder.unwrap_or_default(),
            reorder_by: self.reorder_by.unwrap_or(Duration::from_millis(20)),
            delay: self.delay.unwrap_or_default(),
            jitter: self.jitter.unwrap_or_default(),
            rate: self.rate,
            queue: self.queue.unwrap_or(perfect.queue),
        }
    }

    /// The way back: without the bottleneck.
    pub fn up(&self) -> Conditions {
        Conditions {
            rate: None,
            ..self.down()
        }
    }
}

/// `sfu-load proxy`.
#[derive(Debug, Clone, Args)]
pub struct ProxyArgs {
    /// Where clients send to; port 0 takes any
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The server
    #[arg(long)]
    pub to: SocketAddr,
    /// Seed of the link
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The link, shared by all clients.
    #[command(flatten)]
    pub link: LinkArgs,
}

/// A line of stdin of the proxy.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub struct ProxyLine {
    /// The new conditions, whole: what is not named is as on a perfect link.
    #[command(flatten)]
    pub link: LinkArgs,
}

/// `sfu-load rtp`.
#[derive(Debug, Clone, Args)]
pub struct RtpArgs {
    /// Where the packets go
    #[arg(long)]
    pub to: SocketAddr,
    /// How long to send; without it until the process is ended
    #[arg(long, value_parser = duration)]
    pub duration: Option<Duration>,
    /// Payload type
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u8).range(0..=127))]
    pub payload_type: u8,
    /// The stream.
    #[command(flatten)]
    pub stream: StreamArgs,
}

fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err(format!("{text:?} is not a positive number")),
    }
}

/// 2500k, 2.5M or 2500000.
pub fn bits(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'M') => (&text[..text.len() - 1], 1e6),
        Some(b'G') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let value = (number(digits)? * factor).round() as u64;
    if value == 0 {
        return Err("it must be above zero".into());
    }
    Ok(value)
}

/// 20ms, 1.5s, 2m or 0.
pub fn duration(text: &str) -> Result<Duration, String> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let found = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)));
    let seconds = match found {
        Some((digits, factor)) => number(digits)? * factor,
        None if text == "0" => 0.0,
        None => return Err("it needs a unit: 20ms, 1.5s or 2m".into()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

/// 2% or 0.02.
pub fn share(text: &str) -> Result<f64, String> {
    let value = match text.strip_suffix('%') {
        Some(percent) => number(percent)? / 100.0,
        None => number(text)?,
    };
    if value > 1.0 {
        return Err("it can't be above 100%".into());
    }
    Ok(value)
}

/// 100/s or 100.
pub fn rate_per_second(text: &str) -> Result<f64, String> {
    let value = number(text.strip_suffix("/s").unwrap_or(text))?;
    if value <= 0.0 {
        return Err("it must be above zero".into());
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(bits("2500k"), Ok(2_500_000));
        assert_eq!(bits("2.5M"), Ok(2_500_000));
        assert_eq!(bits("640"), Ok(640));
        assert!(bits("0").is_err() && bits("fast").is_err() && bits("-1k").is_err());
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert!(duration("20").is_err() && duration("ms").is_err());
        assert_eq!(share("2%"), Ok(0.02));
        assert_eq!(share("0.5"), Ok(0.5));
        assert!(share("101%").is_err() && share("NaN").is_err());
        assert_eq!(rate_per_second("100/s"), Ok(100.0));
        assert!(rate_per_second("0/s").is_err());
    }

    #[test]
    fn command_lines_are_understood_or_refused() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace());
        let cli = parse("sfu-load --whep http://h/whep/a --viewers 7 --loss 2% --json").unwrap();
        assert_eq!((cli.load.viewers, cli.load.link.loss), (7, Some(0.02)));
        let cli = parse("sfu-load proxy --to 127.0.0.1:8189 --rate 1M").unwrap();
        assert!(matches!(cli.command, Some(Command::Proxy(p)) if p.link.rate == Some(1_000_000)));
        for wrong in [
            "sfu-load --viewers many",
            "sfu-load proxy",
            "sfu-load --layers 9",
            "sfu-load --streams 0",
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
        let line = "--rate 600k --loss 1% --burst 4 --reorder 2% --reorder-by 30ms";
        let line = ProxyLine::try_parse_from(line.split_whitespace()).unwrap();
        let (down, up) = (line.link.down(), line.link.up());
        assert_eq!((down.burst, up.burst, down.reorder), (4.0, 4.0, 0.02));
        assert_eq!(down.reorder_by, Duration::from_millis(30));
        assert_eq!(line.link.down().rate, Some(600_000));
        assert_eq!(line.link.up().rate, None);
    }
}
