//! `acb publish`: a message to a topic, or one for each line of the input.

use std::collections::VecDeque;

use acb_sdk::{Client, Receipt};
use clap::Args;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::Context;
use crate::{
    connect::Use,
    failure::Result,
    message_args::{MessageArgs, published_json, published_text},
    payload::PayloadArgs,
};

/// Messages of `--lines` that may be unanswered at once.
const OPEN_MAX: usize = 512;

/// What `publish` takes.
#[derive(Args, Debug)]
pub(crate) struct PublishArgs {
    /// The topic, such as orders.new.
    topic: String,

    #[command(flatten)]
    payload: PayloadArgs,

    /// Publishes each line of standard input as a message of its own.
    #[arg(long, conflicts_with_all = ["payload", "file"])]
    lines: bool,

    #[command(flatten)]
    message: MessageArgs,
}

pub(crate) async fn run(args: PublishArgs, context: &Context) -> Result {
    if args.lines {
        return each_line(&args, context).await;
    }
    let payload = args.payload.read()?;
    let client = context.connect(Use::Short).await?;
    let message = client.messages().publish(&args.topic, payload);
    let published = args.message.apply(message).confirm().await?;
    client.close().await;
    context.out.result(|| published_json(&published), || published_text(&published))
}

async fn each_line(args: &PublishArgs, context: &Context) -> Result {
    let client = context.connect(Use::Long).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).split(b'\n');
    let mut open = VecDeque::new();
    let mut count = 0u64;
    while let Some(mut line) = lines.next_segment().await? {
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        open.push_back(queue(args, &client, line).await?);
        count += 1;
        // Answers are told in order; whoever reads them sees each message's id.
        while open.len() > OPEN_MAX || open.front().is_some_and(|r: &Receipt| r.try_get().is_some()) {
            settle(&mut open, context).await?;
        }
    }
    while !open.is_empty() {
        settle(&mut open, context).await?;
    }
    client.close().await;
    let (s, were) = if count == 1 { ("", "was") } else { ("s", "were") };
    context.out.note(&format!("{count} message{s} {were} published to {}", args.topic));
    Ok(())
}

async fn queue(args: &PublishArgs, client: &Client, line: Vec<u8>) -> Result<Receipt> {
    let message = client.messages().publish(&args.topic, line);
    Ok(args.message.apply(message).send().await?)
}

async fn settle(open: &mut VecDeque<Receipt>, context: &Context) -> Result {
    let Some(receipt) = open.pop_front() else { return Ok(()) };
    let published = receipt.await?;
    if context.out.is_json() {
        context.out.result(|| published_json(&published), String::new)?;
    }
    Ok(())
}
