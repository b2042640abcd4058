//! `dev`: a local network of node processes, until stopped; and `dev --add` for more of them.

use std::{path::Path, sync::Arc, time::Duration};

use commonhold_client_sdk::Progress;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    args,
    exit::Failure,
    figures, interrupt,
    local_network::{self, LocalNetwork, LocalNode, Setup},
    output::Output,
    passphrase,
};

/// How often dead nodes are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Started<'a> {
    network: &'a str,
    nodes: &'a [LocalNode],
    client_home: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    passphrase: Option<&'a str>,
}

pub(super) fn run(args: &args::Dev, output: &Output) -> Result<(), Failure> {
    let stop = interrupt::interrupts(&Arc::new(Progress::default())).map_err(Failure::Signals)?;
    if let Some(count) = args.add {
        let added = local_network::add(&args.dir, count, args.config.as_deref(), &stop)?;
        return output.done(&added, || added.iter().map(|node| format!("{}  {}", node.name(), node.address)).collect());
    }
    let given = passphrase::from_environment()?;
    let made = if given.is_none() { Some(random_passphrase()) } else { None };
    let secret = given.as_ref().or(made.as_ref()).map_or("", |passphrase| passphrase.as_str());
    let setup = Setup {
        dir: &args.dir,
        nodes: args.nodes,
        domains: args.domains,
        coding: args.coding,
        overlay: args.config.as_deref(),
        passphrase: secret,
    };
    let mut network = LocalNetwork::start(&setup, &stop)?;
    announce(&network, made.as_ref().map(|passphrase| passphrase.as_str()), output)?;
    output.line("ready")?;
    while !stop.wait(LOOK_EVERY) {
        for (node, how) in network.ended() {
            output.remark(&format!(
                "{} has ended ({how}); start it again with: commonhold node run --config {}",
                node.name(),
                node.folder.join(commonhold_node::CONFIG_FILE).display()
            ));
        }
    }
    Ok(())
}

fn announce(network: &LocalNetwork, passphrase: Option<&str>, output: &Output) -> Result<(), Failure> {
    let home = network.client_home();
    let started = Started { network: network.network(), nodes: network.nodes(), client_home: home.dir(), passphrase };
    output.done(&started, || {
        let secret = passphrase.map(|made| format!(" {}={made}", passphrase::VARIABLE)).unwrap_or_default();
        let mut lines = vec![
            format!("network {}: {}", network.network(), figures::count(network.nodes().len() as u64, "node", "nodes")),
            "its client, in any shell:".to_owned(),
            format!("  export COMMONHOLD_HOME={}{secret}", home.dir().display()),
        ];
        if secret.is_empty() {
            lines.push(format!("  (and {} as it is set now)", passphrase::VARIABLE));
        }
        lines.extend(["  commonhold put FOLDER /x", "Ctrl-C ends all of it"].map(str::to_owned));
        lines
    })
}

/// Hard to guess, easy to copy.
fn random_passphrase() -> Zeroizing<String> {
    Zeroizing::new(format!("{:032x}", rand::random::<u128>()))
}
