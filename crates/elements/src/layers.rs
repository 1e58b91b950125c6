// SPDX-License-Identifier: MPL-2.0

//! The property `layers`: HEIGHT:BITRATE@FPS,… parsed into what cannot be wrong.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Layers that there may be.
pub const MAX_LAYERS: usize = 8;
const HEIGHTS: RangeInclusive<u32> = 16..=8_192;
const BITRATES: RangeInclusive<u32> = 10_000..=400_000_000;
/// Frames a second, and what a fraction of them may be made of.
const RATES: RangeInclusive<f64> = 0.1..=1_000.0;
const TERMS: RangeInclusive<i32> = 1..=1_000_000;

/// One layer as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Lines.
    pub height: u32,
    /// Bit/s.
    pub bitrate: u32,
    /// Frames a second at most; none for all that come.
    pub rate: Option<gst::Fraction>,
}

/// All layers, highest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers(Vec<Layer>);

impl Layers {
    /// The layers, highest first.
    pub fn as_slice(&self) -> &[Layer] {
        &self.0
    }
}

impl Default for Layers {
    fn default() -> Self {
        let layer = |height, bitrate| Layer {
            height,
            bitrate,
            rate: None,
        };
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
        // Of two that differ in nothing else the one with all frames is the higher one.
        let rate = |layer: &Layer| layer.rate.unwrap_or(gst::Fraction::new(i32::MAX, 1));
        layers.sort_by_key(|l| std::cmp::Reverse((l.height, l.bitrate, rate(l))));
        if layers.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("the same layer is given twice".into());
        }
        Ok(Self(layers))
    }
}

fn layer(part: &str) -> Result<Layer, String> {
    let wrong =
        || format!("{part:?} is not HEIGHT:BITRATE or HEIGHT:BITRATE@FPS, such as 720:2500k@30");
    let (height, rest) = part.split_once(':').ok_or_else(wrong)?;
    let (bitrate, rate) = match rest.split_once('@') {
        Some((bitrate, rate)) => (
            bitrate,
            Some(frames_per_second(rate.trim()).ok_or_else(wrong)?),
        ),
        None => (rest, None),
    };
    let height = height.trim();
    let digits = height.bytes().all(|b| b.is_ascii_digit());
    let height: u32 = height.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
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
    let value = |rate: gst::Fraction| f64::from(rate.numer()) / f64::from(rate.denom());
    if rate.is_some_and(|rate| !RATES.contains(&value(rate))) {
        let (min, max) = (RATES.start(), RATES.end());
        return Err(format!(
            "frame rate {part:?} is not between {min} and {max} frames a second"
        ));
    }
    Ok(Layer {
        height,
        bitrate,
        rate,
    })
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
    // 2.3M is 2299999.9999999995 in binary.
    let whole = value.round();
    ((value - whole).abs() < 1e-3 && whole <= f64::from(u32::MAX)).then_some(whole as u32)
}

/// Frames a second, as in `30`, `12.5` and `30000/1001`.
fn frames_per_second(s: &str) -> Option<gst::Fraction> {
    let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let term = |s: &str| {
        let term = s.parse::<i32>().ok().filter(|_| plain(s));
        term.filter(|term| TERMS.contains(term))
    };
    if let Some((numerator, denominator)) = s.split_once('/') {
        return Some(gst::Fraction::new(term(numerator)?, term(denominator)?));
    }
    let Some((whole, decimals)) = s.split_once('.') else {
        return Some(gst::Fraction::new(term(s)?, 1));
    };
    if !plain(whole) || !plain(decimals) || decimals.len() > 3 {
        return None;
    }
    let thousandths = format!("{whole}{decimals:0<3}");
    let thousandths = thousandths.parse::<i32>().ok()?;
    TERMS
        .contains(&thousandths)
        .then(|| gst::Fraction::new(thousandths, 1_000))
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
            match layer.rate {
                Some(rate) if rate.denom() == 1 => write!(f, "@{}", rate.numer())?,
                Some(rate) => write!(f, "@{}/{}", rate.numer(), rate.denom())?,
                None => {}
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
            ("360:2.3M,240:4.35M", "360:2300k,240:4350k"),
            ("720:2500k@30 , 720:2500k @ 15", "720:2500k@30,720:2500k@15"),
            ("720:1M@25,720:1M", "720:1000k,720:1000k@25"),
            ("720:1M@30000/1001", "720:1000k@30000/1001"),
            ("720:1M@60/2", "720:1000k@30"),
            ("720:1M@12.5", "720:1000k@25/2"),
            ("720:1M@29.970", "720:1000k@2997/100"),
        ] {
            assert_eq!(text.parse::<Layers>().unwrap().to_string(), expected);
        }
        let layers = |text: &str| text.parse::<Layers>().unwrap();
        let text = layers("1080:6M@59.94,540:1M,90:100001@5").to_string();
        assert_eq!(layers(&text).to_string(), text, "what is read back is read");
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
            ("+720:1M", "HEIGHT:BITRATE"),
            ("720:1.5", "HEIGHT:BITRATE"),
            ("720:.", "HEIGHT:BITRATE"),
            ("720:1M@", "@FPS"),
            ("720:1M@0", "@FPS"),
            ("720:1M@-5", "@FPS"),
            ("720:1M@+5", "@FPS"),
            ("720:1M@30/0", "@FPS"),
            ("720:1M@0/1", "@FPS"),
            ("720:1M@1e3", "@FPS"),
            ("720:1M@30@15", "@FPS"),
            ("720@30:1M", "@FPS"),
            ("720:1M@.5", "@FPS"),
            ("720:1M@5.", "@FPS"),
            ("720:1M@1.2345", "@FPS"),
            ("720:1M@99999999999", "@FPS"),
            ("720:1M@1/1000", "frame rate"),
            ("720:1M@1001", "frame rate"),
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
