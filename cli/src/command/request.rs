//! `acb request`: a question, and its answer.

use std::time::Duration;

use clap::Args;

use super::{Context, guest::Guest};
use crate::{
    connect::Use,
    failure::Result,
    message_args::pair,
    output::{message_json, text_or_size},
    payload::PayloadArgs,
};

/// What `request` takes.
#[derive(Args, Debug)]
pub(crate) struct RequestArgs {
    /// The agent to ask; with --topic, the topic.
    to: String,

    #[command(flatten)]
    payload: PayloadArgs,

    /// Asks whoever answers on a topic; the first answer counts.
    #[arg(long)]
    topic: bool,

    /// How long to wait for the answer. Travels with the request, so that nobody works on one that is over.
    #[arg(long, short, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// A named value, `name=value`; again for more.
    #[arg(long = "attribute", short = 'a', value_name = "NAME=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,

    /// Media type of the payload, such as application/json.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,

    /// Prints the answer's bytes and nothing else.
    #[arg(long)]
    raw: bool,
}

pub(crate) async fn run(args: RequestArgs, context: &Context) -> Result {
    let payload = args.payload.read()?;
    let (target, client) = context.connect_to(Use::OwnInbox).await?;
    let guest = context.or_stop(Guest::of(&client, &target, context.global.agent.is_some())).await??;
    let messages = client.messages();
    let mut request =
        if args.topic { messages.request_topic(&args.to, payload) } else { messages.request(&args.to, payload) };
    for (name, value) in args.attributes {
        request = request.attribute(name, value);
    }
    if let Some(media_type) = args.content_type {
        request = request.content_type(media_type);
    }
    let reply = context.or_stop(request.timeout(args.timeout).send()).await;
    guest.leave(&client).await;
    client.close().await;
    let reply = reply??.into_message();
    if args.raw {
        return context.out.raw(reply.payload_ref());
    }
    context.out.result(|| message_json(&reply), || text_or_size(reply.payload_ref()))
}
