//! Two agents keep one plan: one shares it, both change it, none overwrites the other unseen, and a third sees every change.
//!
//! Start a server first: `acb-server --dev`. Then: `cargo run -p acb-examples --bin share-context`.

use acb_sdk::{Client, ContextAccess, ContextEvent, Credentials, ErrorCode, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let alice = connect("alice").await?;
    let bob = connect("bob").await?;
    let carol = connect("carol").await?;

    // A context is private unless it is shared: Bob may write to this one, Carol may read it, nobody else sees it. Its
    // key is taken as long as it lives, so what an earlier run of this sample left goes first.
    if let Ok(old) = alice.contexts().get("plans/trip").without_payload().await {
        alice.contexts().delete(old.id).if_rev(old.rev).await?;
    }
    let plan = alice
        .contexts()
        .share("plans/trip", "book a train")
        .kind("plan")
        .share_with("bob", ContextAccess::Write)
        .share_with("carol", ContextAccess::Read)
        .await?;
    println!("alice shared {}, version {}", plan.key.as_deref().unwrap_or_default(), plan.version);

    // Carol watches: first what is there, then every change, each once and in order.
    let mut watch = carol.contexts().watch().key("plans/trip").payloads_up_to(1024).open().await?;

    // A change names the revision that it was made for. Bob is first; Alice's, made for the same one, is refused.
    let contexts = bob.contexts();
    contexts.update(&plan.id).payload("book a train; find a hotel").if_rev(plan.rev).await?;
    match alice.contexts().update(&plan.id).payload("book a flight").if_rev(plan.rev).await {
        Err(error) if error.code() == ErrorCode::RevisionConflict => println!("alice was late: {}", error.code()),
        Err(error) => return Err(error),
        Ok(_) => println!("alice overwrote what bob had written"),
    }

    // `modify` does what Alice should have done: it gets the plan, changes that, and begins anew if somebody is faster.
    let changed =
        alice.contexts().modify("plans/trip", |plan| Some([&plan.payload[..], b"; pack"].concat().into())).await?;
    println!("alice made version {}", changed.version);

    let mut seen = 0;
    while seen < 3 {
        let event = watch.next().await.expect("the watch is open")?;
        if let ContextEvent::State(plan) | ContextEvent::Updated(plan) = event {
            println!("carol sees {} by {}: {}", plan.version, plan.updated_by, text(&plan.payload));
            seen += 1;
        }
    }

    // To Dave it does not exist: what somebody must not see and what is not there answer alike.
    let dave = connect("dave").await?;
    match dave.contexts().get("plans/trip").await {
        Err(error) => println!("dave gets {}", error.code()),
        Ok(_) => println!("dave reads what was not shared with him"),
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
