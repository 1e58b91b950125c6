// SPDX-License-Identifier: MPL-2.0

//! Where each picture is.

/// How pictures are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstSfuRoomMixerLayout")]
#[repr(u32)]
pub(crate) enum Layout {
    #[default]
    #[enum_value(name = "All of one size", nick = "grid")]
    Grid,
    #[enum_value(
        name = "Who speaks large, the others in a column beside",
        nick = "speaker"
    )]
    Speaker,
}

/// A picture's place, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// Of so many pictures, the one at `main` being the one to look at.
pub(super) fn tiles(
    layout: Layout,
    count: usize,
    main: usize,
    (width, height): (u32, u32),
) -> Vec<Tile> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    match layout {
        Layout::Grid => grid(count, width, height),
        Layout::Speaker => speaker(count, main, width, height),
    }
}

fn grid(count: u32, width: u32, height: u32) -> Vec<Tile> {
    let columns = (1..)
        .find(|n: &u32| n.saturating_mul(*n) >= count)
        .unwrap_or(1);
    let rows = count.div_ceil(columns);
    let tile = |n: u32| {
        let (column, row) = (n % columns, n / columns);
        // The last row is in the middle.
        let in_row = (count - row * columns).min(columns);
        let (tile_width, tile_height) = (width / columns, height / rows);
        Tile {
            x: (width - in_row * tile_width) / 2 + column * tile_width,
            y: row * tile_height,
            width: tile_width,
            height: tile_height,
        }
    };
    (0..count).map(tile).collect()
}

fn speaker(count: u32, main: usize, width: u32, height: u32) -> Vec<Tile> {
    let others = count.saturating_sub(1);
    // Four small ones fill the column.
    let small_height = height / others.max(4);
    let column = if others > 0 { width / 5 } else { 0 };
    let mut next = 0;
    let tile = |n: u32| {
        if usize::try_from(n) == Ok(main) {
            return Tile {
                x: 0,
                y: 0,
                width: width - column,
                height,
            };
        }
        let y = next * small_height;
        next += 1;
        Tile {
            x: width - column,
            y,
            width: column,
            height: small_height,
        }
    };
    (0..count).map(tile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_inside_and_none_covers_another() {
        for layout in [Layout::Grid, Layout::Speaker] {
            for count in 0..60_usize {
                for main in [0, count / 2, count.saturating_sub(1)] {
                    let tiles = tiles(layout, count, main, (1280, 720));
                    assert_eq!(tiles.len(), count);
                    for (n, a) in tiles.iter().enumerate() {
                        assert!(a.width > 0 && a.height > 0, "{layout:?} {count}");
                        assert!(a.x + a.width <= 1280 && a.y + a.height <= 720, "{a:?}");
                        for b in &tiles[n + 1..] {
                            let apart = a.x + a.width <= b.x
                                || b.x + b.width <= a.x
                                || a.y + a.height <= b.y
                                || b.y + b.height <= a.y;
                            assert!(apart, "{layout:?} {count}: {a:?} {b:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn one_has_all_and_who_speaks_most() {
        let all = Tile {
            x: 0,
            y: 0,
            width: 1280,
            height: 720,
        };
        for layout in [Layout::Grid, Layout::Speaker] {
            assert_eq!(tiles(layout, 1, 0, (1280, 720)), [all]);
        }
        let tiles = tiles(Layout::Speaker, 5, 3, (1280, 720));
        assert_eq!((tiles[3].width, tiles[3].height), (1024, 720));
        assert_eq!((tiles[4].x, tiles[4].y, tiles[4].height), (1024, 540, 180));
    }
}
