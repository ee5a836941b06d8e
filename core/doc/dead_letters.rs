pub async fn example(client: acb_sdk::Client) -> acb_sdk::Result<()> {
    let mut dead = client.dead_letters().list("work");
    while let Some(letter) = dead.next().await {
        let letter = letter?;
        println!("{} died: {} ({})", letter.message_id, letter.reason, letter.last_error);
        client.dead_letters().redrive(letter.id).await?;
    }
    Ok(())
}
