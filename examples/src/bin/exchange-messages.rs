//! Two agents exchange messages, and a third hears what is published.
//!
//! Start a server first: `acb-server --dev`. Then: `cargo run -p acb-examples --bin exchange-messages`.

use acb_sdk::{Client, Credentials, Result};

#[tokio::main]
async fn main() -> Result<()> {
    // Each agent has a connection of its own. A server that was started with --dev believes the names that they give;
    // elsewhere they would bring `Credentials::enrolment_key(key, name)`.
    let alice = connect("alice").await?;
    let bob = connect("bob").await?;
    let listener = connect("listener").await?;

    // Who registers gets an inbox. It is there from now on, whether or not the agent is.
    alice.agents().register("alice").await?;
    bob.agents().register("bob").await?;

    // A message to one agent. `confirm` waits until it is stored: it would survive a power cut now.
    let stored = alice.messages().send("bob", "hello, bob").confirm().await?;
    println!("alice sent {}", stored.id);

    // Bob opens his inbox only now, and finds it there.
    let mut inbox = bob.inbox().await?;
    let message = inbox.next().await.expect("the inbox is open")?;
    println!("bob got {:?} from {}", text(&message.payload()), message.from());
    // Until a message is acknowledged it is only lent: without this line it would come again.
    message.ack()?;

    // A message to a topic goes to everybody who listens there. `*` stands for one token, a last `>` for the rest.
    let mut news = listener.listen(["news.>"]).await?;
    bob.messages().publish("news.today", "bob has mail").confirm().await?;
    let message = news.next().await.expect("the subscription is open")?;
    println!("the listener heard {:?} on {}", text(&message.payload()), message.topic());
    message.ack()?;

    // Drain finishes what is in hand, and closes.
    for client in [alice, bob, listener] {
        client.drain().await?;
    }
    Ok(())
}

async fn connect(agent: &str) -> Result<Client> {
    let url = std::env::var("ACB_URL").unwrap_or_else(|_| "acb://127.0.0.1:7400".into());
    Client::builder(url).credentials(Credentials::dev("default", agent)).connect().await
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}
