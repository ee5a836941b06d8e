//! `acb send`: a message to one agent's inbox, or to everybody's.

use clap::Args;

use super::Context;
use crate::{
    connect::Use,
    failure::Result,
    message_args::{MessageArgs, published_json, published_text},
    payload::PayloadArgs,
};

/// What `send` takes.
#[derive(Args, Debug)]
pub(crate) struct SendArgs {
    /// The agent.
    #[arg(value_name = "AGENT", required_unless_present = "all")]
    to: Option<String>,

    /// To every agent of the tenant; then the payload comes from --file or a pipe.
    #[arg(long, conflicts_with = "to")]
    all: bool,

    #[command(flatten)]
    payload: PayloadArgs,

    #[command(flatten)]
    message: MessageArgs,
}

pub(crate) async fn run(args: SendArgs, context: &Context) -> Result {
    let payload = args.payload.read()?;
    let client = context.connect(Use::Short).await?;
    let message = match &args.to {
        Some(agent) => client.messages().send(agent, payload),
        None => client.messages().broadcast(payload),
    };
    let published = args.message.apply(message).confirm().await?;
    client.close().await;
    context.out.result(|| published_json(&published), || published_text(&published))
}
