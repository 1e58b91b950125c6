// SPDX-License-Identifier: MPL-2.0

//! How interlaced video becomes pictures: the same choice in each element that encodes.

/// Makes the enumerations `Deinterlace` and `Fields` and the properties that have them, with types of the element's own: two
/// plugins of one process can't register the same one.
#[macro_export]
macro_rules! deinterlacing {
    ($deinterlace:literal, $fields:literal, $for:literal) => {
        /// Which video is taken for interlaced.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
        #[enum_type(name = $deinterlace)]
        #[repr(u32)]
        pub(crate) enum Deinterlace {
            #[default]
            #[enum_value(name = "What its caps call interlaced", nick = "auto")]
            Auto,
            #[enum_value(name = "All", nick = "all")]
            All,
            #[enum_value(name = "None: it is encoded as it comes", nick = "off")]
            Off,
        }

        /// What becomes of a frame's two fields.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
        #[enum_type(name = $fields)]
        #[repr(u32)]
        pub(crate) enum Fields {
            #[default]
            #[enum_value(
                name = "A picture from the top field: 1080i50 becomes 1080p25",
                nick = "top"
            )]
            Top,
            #[enum_value(name = "A picture from the bottom field", nick = "bottom")]
            Bottom,
            #[enum_value(
                name = "A picture each, at twice the cost: 1080i50 becomes 1080p50",
                nick = "all"
            )]
            All,
        }

        impl Fields {
            pub(crate) fn nick(self) -> &'static str {
                match self {
                    Self::Top => "top",
                    Self::Bottom => "bottom",
                    Self::All => "all",
                }
            }
        }

        /// The properties `deinterlace` and `deinterlace-fields`.
        fn deinterlacing(deinterlace: Deinterlace, fields: Fields) -> [glib::ParamSpec; 2] {
            [
                glib::ParamSpecEnum::builder_with_default("deinterlace", deinterlace)
                    .nick("Deinterlace")
                    .blurb(concat!($for, "Which video is deinterlaced"))
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder_with_default("deinterlace-fields", fields)
                    .nick("Deinterlaced fields")
                    .blurb(concat!(
                        $for,
                        "Which fields become pictures: one of two (1080i50 becomes 1080p25), or all (1080p50)"
                    ))
                    .mutable_ready()
                    .build(),
            ]
        }
    };
}
