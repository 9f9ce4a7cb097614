//! `walk_cost WALKER PID`: one walk at each `malloc` of a process until Ctrl-C, then what the walks
//! came to, in JSON. `cargo xtask bench` reads from the process what they cost.
#![expect(clippy::print_stdout, reason = "a report")]

use std::num::NonZeroU32;

use memtap::bpf::bench::Walker;
use memtap::recorder::bench::Walks;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(pid)) = (arguments.next(), arguments.next()) else {
        return Err(format!("usage: walk_cost {} PID", Walker::ALL.map(Walker::name).join("|")).into());
    };
    let walker = Walker::ALL
        .into_iter()
        .find(|walker| walker.name() == name)
        .ok_or_else(|| format!("there is no walker {name}"))?;
    let pid: NonZeroU32 = pid.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Before the probe is seen: whoever sees it may interrupt at once.
    runtime.block_on(async {
        let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let mut walks = Walks::start(pid, walker)?;
        interrupts.recv().await;
        let outcome = walks.outcome()?;
        println!(
            "{}",
            serde_json::json!({
                "hits": outcome.hits,
                "frames": outcome.frames,
                "failed": outcome.failed,
                "remembered": outcome.remembered,
            })
        );
        Ok(())
    })
}
