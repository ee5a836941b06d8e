pub async fn example(client: acb_sdk::Client) -> acb_sdk::Result<()> {
    client.agents().register("reviewer-1").kind("reviewer").capability("code.review").await?;
    let mut found = client.agents().discover().capability("code.review").stream();
    while let Some(agent) = found.next().await {
        println!("{}", agent?.id());
    }
    Ok(())
}
