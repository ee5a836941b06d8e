use acb_sdk::SubscriptionSpec;

pub async fn example(client: acb_sdk::Client) -> acb_sdk::Result<()> {
    client.subscriptions().create(SubscriptionSpec::new("work").filter("jobs.*")).await?;
    let info = client.subscriptions().get("work").await?;
    println!("{} messages wait", info.next_seq - info.cursor_seq);
    Ok(())
}
