//! One agent asks, another answers.
//!
//! Start a server first: `acb-server --dev`. Then: `cargo run -p acb-examples --bin request-reply`.

#![expect(clippy::disallowed_methods, reason = "an example owns its tasks")]

use std::time::Duration;

use acb_sdk::{Client, Credentials, ErrorCode, Message, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let asker = connect("asker").await?;
    asker.agents().register("asker").await?;

    // Nobody can answer yet. That is said at once; there is nothing to wait for, and nothing is stored.
    match asker.messages().request("counter", "how many words are these?").await {
        Err(error) if matches!(error.code(), ErrorCode::NoResponders | ErrorCode::AgentNotFound) => {
            println!("nobody answers: {}", error.code());
        }
        Err(error) => return Err(error),
        Ok(reply) => println!("somebody else runs this example: {:?}", reply.topic()),
    }

    // The one who answers registers, opens its inbox, and handles what comes: here up to four requests at a time. What
    // the handler returns decides: `Ok` acknowledges the request, an error gives it back for another attempt.
    let counter = connect("counter").await?;
    counter.agents().register("counter").capability("words.count").await?;
    let inbox = counter.inbox().await?;
    let answering = tokio::spawn(inbox.for_each(4, answer));

    // A request is a message with a deadline. Awaiting it gives the reply.
    for question in ["how many words are these?", "one", ""] {
        let reply = asker.messages().request("counter", question).timeout(Duration::from_secs(5)).await?;
        println!("{question:?} has {} words", String::from_utf8_lossy(&reply.payload()));
    }

    // Drain lets running handlers finish; the loop over the inbox then ends by itself.
    counter.drain().await?;
    answering.await.expect("the handler does not panic")?;
    asker.drain().await
}

async fn answer(request: Message) -> Result<()> {
    let words = String::from_utf8_lossy(&request.payload()).split_whitespace().count();
    request.reply(words.to_string())?.confirm().await?;
    Ok(())
}

async fn connect(agent: &str) -> Result<Client> {
    let url = std::env::var("ACB_URL").unwrap_or_else(|_| "acb://127.0.0.1:7400".into());
    Client::builder(url).credentials(Credentials::dev("default", agent)).connect().await
}
