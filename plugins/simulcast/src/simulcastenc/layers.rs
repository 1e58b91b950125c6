// SPDX-License-Identifier: MPL-2.0

//! The property `layers`: HEIGHT:BITRATE,… parsed into what cannot be wrong.

use std::fmt;
use std::str::FromStr;

const MAX_LAYERS: usize = 8;
const HEIGHTS: std::ops::RangeInclusive<u32> = 16..=8_192;
const BITRATES: std::ops::RangeInclusive<u32> = 10_000..=400_000_000;

/// One layer as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layer {
    /// Lines.
    pub(super) height: u32,
    /// Bit/s.
    pub(super) bitrate: u32,
}

/// All layers, highest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layers(Vec<Layer>);

impl Layers {
    pub(super) fn as_slice(&self) -> &[Layer] {
        &self.0
    }
}

impl Default for Layers {
    fn default() -> Self {
        let layer = |height, bitrate| Layer { height, bitrate };
        Self(vec![layer(720, 2_500_000), layer(360, 700_000)])
    }
}

impl FromStr for Layers {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let layers: Result<Vec<_>, _> = s.split(',').map(|part| layer(part.trim())).collect();
        let mut layers = layers?;
        if layers.len() > MAX_LAYERS {
            return Err(format!(
                "{} layers are given, {MAX_LAYERS} are possible",
                layers.len()
            ));
        }
        layers.sort_by_key(|l| std::cmp::Reverse((l.height, l.bitrate)));
        if layers.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("the same layer is given twice".into());
        }
        Ok(Self(layers))
    }
}

fn layer(part: &str) -> Result<Layer, String> {
    let wrong = || format!("{part:?} is not HEIGHT:BITRATE, such as 720:2500k");
    let (height, bitrate) = part.split_once(':').ok_or_else(wrong)?;
    let height: u32 = height.trim().parse().map_err(|_| wrong())?;
    let bitrate = bits_per_second(bitrate.trim()).ok_or_else(wrong)?;
    if !HEIGHTS.contains(&height) {
        let (min, max) = (HEIGHTS.start(), HEIGHTS.end());
        return Err(format!(
            "height {height} is not between {min} and {max} lines"
        ));
    }
    if !BITRATES.contains(&bitrate) {
        return Err(format!(
            "bitrate {part:?} is not between 10k and 400M bit/s"
        ));
    }
    Ok(Layer { height, bitrate })
}

/// A number of bit/s, in which k and M multiply, as in `2500k` and `2.5M`.
fn bits_per_second(s: &str) -> Option<u32> {
    let (number, factor) = match s.as_bytes().last()? {
        b'k' | b'K' => (&s[..s.len() - 1], 1e3),
        b'm' | b'M' => (&s[..s.len() - 1], 1e6),
        _ => (s, 1.0),
    };
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value = number.parse::<f64>().ok().filter(|_| plain)? * factor;
    (value.fract() == 0.0 && value <= f64::from(u32::MAX)).then_some(value as u32)
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, layer) in self.0.iter().enumerate() {
            let separator = if n > 0 { "," } else { "" };
            let (height, bitrate) = (layer.height, layer.bitrate);
            if bitrate % 1_000 == 0 {
                write!(f, "{separator}{height}:{}k", bitrate / 1_000)?;
            } else {
                write!(f, "{separator}{height}:{bitrate}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_and_sorted() {
        for (text, expected) in [
            ("720:2500k,360:700k", "720:2500k,360:700k"),
            (" 270:400K , 1080:6M ", "1080:6000k,270:400k"),
            ("540:1.5M", "540:1500k"),
            ("360:700001", "360:700001"),
            ("360:1M,360:500k", "360:1000k,360:500k"),
        ] {
            assert_eq!(text.parse::<Layers>().unwrap().to_string(), expected);
        }
        assert_eq!(Layers::default().to_string(), "720:2500k,360:700k");
    }

    #[test]
    fn wrong_layers_are_refused_with_a_reason() {
        for (text, reason) in [
            ("", "HEIGHT:BITRATE"),
            ("720", "HEIGHT:BITRATE"),
            ("720:", "HEIGHT:BITRATE"),
            ("720:2500k,", "HEIGHT:BITRATE"),
            ("-1:2500k", "HEIGHT:BITRATE"),
            ("720:-5k", "HEIGHT:BITRATE"),
            ("720:1e9", "HEIGHT:BITRATE"),
            ("720:inf", "HEIGHT:BITRATE"),
            ("720:99999M", "HEIGHT:BITRATE"),
            ("0:500k", "height"),
            ("9000:500k", "height"),
            ("720:1", "bitrate"),
            ("720:1M,720:1M", "twice"),
            ("1:1,2:1,3:1,4:1,5:1,6:1,7:1,8:1,9:1", "height"),
            (
                "16:1M,17:1M,18:1M,19:1M,20:1M,21:1M,22:1M,23:1M,24:1M",
                "9 layers",
            ),
        ] {
            let error = text.parse::<Layers>().unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
