pub async fn example(client: acb_sdk::Client) -> acb_sdk::Result<()> {
    let identity = client.auth().refresh().await?;
    println!("{} of {}, {:?}", identity.agent_id, identity.tenant_id, identity.roles);
    Ok(())
}
