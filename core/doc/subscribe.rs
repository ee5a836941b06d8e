pub async fn example(client: acb_sdk::Client) -> acb_sdk::Result<()> {
    let mut work = client.subscribe("work").credits(16).await?;
    while let Some(message) = work.next().await {
        let message = message?;
        println!("{}: {} bytes", message.topic(), message.payload().len());
        message.ack()?;
    }
    Ok(())
}
