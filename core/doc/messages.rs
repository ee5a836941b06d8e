use std::time::Duration;
use acb_sdk::Durability;

pub async fn example(client: acb_sdk::Client) -> acb_sdk::Result<()> {
    let messages = client.messages();
    // Wait until it is on disk.
    let stored = messages.send("worker-1", "do this").content_type("text/plain").confirm().await?;
    // Or go on, and look later.
    let receipt = messages.publish("news.today", "something happened").durability(Durability::Written).send().await?;
    let reply = messages.request("worker-1", "how far are you?").timeout(Duration::from_secs(2)).await?;
    println!("{}: {:?}, {}", stored.id, reply.payload(), receipt.await?.id);

    // Many of one shape: one lock and one copy each.
    let publisher = messages.publisher("measurements.room-1").build()?;
    for n in 0..1000u32 {
        drop(publisher.publish(n.to_le_bytes()).await?);
    }
    messages.flush().await;
    Ok(())
}
