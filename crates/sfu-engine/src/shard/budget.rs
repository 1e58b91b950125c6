// SPDX-License-Identifier: MPL-2.0

//! How much of a viewer's share of the network packets that are sent again may take.

/// Of what is sent for the first time, the part by which the budget grows.
const SHARE: u64 = 15;
/// What may be sent again in a burst, also at the beginning, when little was sent that it could be a part of: a lost
/// tenth of a keyframe's packets, several times over.
const BURST: u64 = 48_000;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Budget {
    /// Hundredths of bytes.
    left: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: BURST * 100 }
    }
}

impl Budget {
    /// So many bytes were sent for the first time.
    pub(super) fn earn(&mut self, bytes: usize) {
        self.left = (self.left + bytes as u64 * SHARE).min(BURST * 100);
    }

    /// Whether so many may be sent again.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        let wanted = bytes as u64 * 100;
        let enough = self.left >= wanted;
        if enough {
            self.left -= wanted;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifteen_percent_may_be_sent_again_after_the_first_burst() {
        let mut budget = Budget::default();
        let again = |budget: &mut Budget| (0..).take_while(|_| budget.spend(1_000)).count();
        assert_eq!(again(&mut budget), 48);
        for _ in 0..100 {
            budget.earn(1_000);
        }
        assert_eq!(again(&mut budget), 15);
        for _ in 0..10_000 {
            budget.earn(1_000);
        }
        assert_eq!(again(&mut budget), 48, "no more than a burst is saved up");
    }
}
