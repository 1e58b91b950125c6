// SPDX-License-Identifier: MPL-2.0

//! Simulcast layers as an offer names them (RFC 8851, RFC 8853).

use super::LAYERS;
use super::error::{OfferError, shown};
use super::lines::word;

/// The longest name of a layer.
const LONGEST: usize = 255;
/// The longest restrictions of a layer that are answered.
const RESTRICTIONS: usize = 255;

/// A layer that the peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layer<'a> {
    pub(super) rid: &'a str,
    /// As they stand in its `a=rid` line.
    pub(super) restrictions: &'a str,
    /// It sends nothing yet, and must not be made to by the answer.
    pub(super) is_paused: bool,
}

/// What an m-line says of layers.
#[derive(Debug, Clone, Default)]
pub(super) struct Simulcast<'a> {
    /// `a=rid:NAME send`, with restrictions.
    rids: Vec<(&'a str, &'a str)>,
    /// What follows `send` in `a=simulcast`.
    sent: Option<&'a str>,
}

impl<'a> Simulcast<'a> {
    /// Takes an attribute in. `false`: it is no such one.
    pub(super) fn read(&mut self, name: &str, value: &'a str) -> bool {
        match name {
            "rid" => {
                let (rid, rest) = word(value);
                let (direction, restrictions) = word(rest);
                // More than can be told apart are refused with the layers.
                if direction == "send" && self.rids.len() <= LAYERS * 4 {
                    self.rids.push((rid, restrictions));
                }
            }
            "simulcast" => {
                let mut words = value.split_ascii_whitespace();
                while let (Some(direction), Some(list)) = (words.next(), words.next()) {
                    if direction == "send" {
                        self.sent = self.sent.or(Some(list));
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// The layers in their order; of alternatives the first, whether it is paused at first or not.
    pub(super) fn layers(&self) -> Result<Vec<Layer<'a>>, OfferError> {
        let mut layers: Vec<Layer<'a>> = Vec::new();
        // Drafts before the RFC wrote `rid=`.
        let list = self.sent.unwrap_or_default().trim_start_matches("rid=");
        for alternatives in list.split(';').filter(|a| !a.is_empty()) {
            if layers.len() == LAYERS {
                let why = format!("a=simulcast names more than {LAYERS} layers");
                return Err(OfferError::unacceptable(why));
            }
            let first = alternatives.split(',').next().unwrap_or_default();
            let rid = first.trim_start_matches('~');
            let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            if !(1..=LONGEST).contains(&rid.len()) || !rid.bytes().all(is_letter) {
                let why = format!(
                    "the layer's name {} is not 1 to {LONGEST} of A-Z a-z 0-9 - _",
                    shown(rid)
                );
                return Err(OfferError::invalid(why));
            }
            if layers.iter().any(|l| l.rid == rid) {
                let why = format!("a=simulcast names the layer {} twice", shown(rid));
                return Err(OfferError::invalid(why));
            }
            let declared = self.rids.iter().find(|(name, _)| *name == rid);
            layers.push(Layer {
                rid,
                restrictions: declared.map_or("", |(_, restrictions)| restrictions),
                is_paused: first.starts_with('~'),
            });
        }
        Ok(layers)
    }
}

impl Layer<'_> {
    /// As it stands in the answer's `a=simulcast`: one that is not marked as paused there begins to send (RFC 8853, section 5.3).
    pub(super) fn answered_name(&self) -> String {
        let mark = if self.is_paused { "~" } else { "" };
        format!("{mark}{}", self.rid)
    }

    /// The restrictions that the answer repeats (RFC 8851, section 6.3), of payload types those that are taken.
    pub(super) fn answered_restrictions(&self, is_taken: impl Fn(u8) -> bool) -> String {
        if self.restrictions.len() > RESTRICTIONS {
            return String::new();
        }
        let mut out: Vec<String> = Vec::new();
        for restriction in self.restrictions.split(';').map(str::trim) {
            let Some(pts) = restriction.strip_prefix("pt=") else {
                out.extend((!restriction.is_empty()).then(|| restriction.to_owned()));
                continue;
            };
            let pts = pts.split(',').filter_map(|pt| pt.trim().parse().ok());
            let taken: Vec<_> = pts
                .filter(|pt| is_taken(*pt))
                .map(|pt: u8| pt.to_string())
                .collect();
            if !taken.is_empty() {
                out.push(format!("pt={}", taken.join(",")));
            }
        }
        out.join(";")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(simulcast: &str) -> Result<Vec<String>, OfferError> {
        let mut read = Simulcast::default();
        assert!(read.read("rid", "h send max-width=1280;max-fr=30"));
        assert!(read.read("rid", "r recv"));
        assert!(read.read("simulcast", simulcast));
        let layers = read.layers()?;
        assert!(layers.iter().all(|l| !l.rid.starts_with('~')));
        Ok(layers.iter().map(Layer::answered_name).collect())
    }

    #[test]
    fn layers_are_those_that_are_sent() {
        let longest = "a".repeat(255);
        for (simulcast, expected) in [
            ("send h;m;l", vec!["h", "m", "l"]),
            ("recv r send h;l", vec!["h", "l"]),
            ("send ~h;m,n;~l,k", vec!["~h", "m", "~l"]),
            ("send rid=h;m", vec!["h", "m"]),
            ("send h;", vec!["h"]),
            ("recv r", vec![]),
            ("", vec![]),
            ("send", vec![]),
            (
                "send high-layer;high_layer",
                vec!["high-layer", "high_layer"],
            ),
            (&format!("send {longest}"), vec![&longest]),
        ] {
            assert_eq!(layers(simulcast).unwrap(), expected, "{simulcast}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for simulcast in [
            "send h;h",
            "send ä",
            "send ~",
            "send a.b",
            "send ,m",
            "send 1;2;3;4;5;6;7;8;9",
        ] {
            assert!(layers(simulcast).is_err(), "{simulcast}");
        }
        assert!(layers(&format!("send {}", "a".repeat(256))).is_err());
    }

    #[test]
    fn restrictions_are_repeated_as_far_as_payload_types_are_taken() {
        for (restrictions, expected) in [
            ("", ""),
            ("pt=96,97;max-width=1280", "pt=96;max-width=1280"),
            ("pt=97; max-fr=30", "max-fr=30"),
        ] {
            let layer = Layer {
                rid: "h",
                restrictions,
                is_paused: false,
            };
            assert_eq!(layer.answered_restrictions(|pt| pt == 96), expected);
        }
    }
}
