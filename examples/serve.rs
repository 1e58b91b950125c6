// SPDX-License-Identifier: MPL-2.0

//! A whole server as an application that links the plugins, instead of having GStreamer find them.
//!
//! `cargo run --release -p sfu-examples --bin serve -- [PIPELINE]` serves what PIPELINE makes, a test picture by
//! default, as the stream `example` on port 8080, and says every few seconds how many watch.

use anyhow::{Context, Result, anyhow, bail};
use gst::prelude::*;

const TEST_PICTURE: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360";

fn main() -> Result<()> {
    gst::init()?;
    gstsfu::plugin_register_static()?;
    gstsimulcast::plugin_register_static()?;
    let source = std::env::args()
        .nth(1)
        .unwrap_or_else(|| TEST_PICTURE.into());
    let line = format!(
        "sfusignaller name=signaller  {source} ! sfusink name=out stream=example layers=360:700k,180:200k"
    );
    let pipeline = gst::parse::launch(&line)?;
    let pipeline = pipeline
        .downcast::<gst::Pipeline>()
        .map_err(|_| anyhow!("that is no pipeline"))?;
    let sink = pipeline
        .by_name("out")
        .context("the pipeline has its sink")?;
    let signaller = pipeline
        .by_name("signaller")
        .context("the pipeline has its signaller")?;
    pipeline
        .set_state(gst::State::Playing)
        .map_err(|e| explained(&pipeline, e.into()))?;
    println!(
        "http://localhost:{}/example",
        signaller.property::<u32>("port")
    );
    let result = watch(&pipeline, &sink);
    pipeline.set_state(gst::State::Null)?;
    result
}

/// Says what happens until the pipeline ends.
fn watch(pipeline: &gst::Pipeline, sink: &gst::Element) -> Result<()> {
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    loop {
        let types = [gst::MessageType::Error, gst::MessageType::Eos];
        match bus.timed_pop_filtered(gst::ClockTime::from_seconds(5), &types) {
            None => {
                let stats = sink.property::<gst::Structure>("stats");
                println!("{} viewers, {stats}", sink.property::<u32>("viewers"));
            }
            Some(message) => match message.view() {
                gst::MessageView::Error(error) => bail!("{}", error.error()),
                _ => return Ok(()),
            },
        }
    }
}

/// The element's own error says more than that the state did not change.
fn explained(pipeline: &gst::Pipeline, otherwise: anyhow::Error) -> anyhow::Error {
    let message = pipeline
        .bus()
        .and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    match message.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Error(error)) => anyhow!("{}", error.error()),
        _ => otherwise,
    }
}
