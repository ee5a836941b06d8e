pub async fn example(client: acb_sdk::Client) -> acb_sdk::Result<()> {
    let admin = client.admin();
    admin.create_group("reviewers", "who reads plans").await?;
    admin.add_group_members("reviewers", ["worker-1", "worker-2"]).await?;
    client.contexts().share("plans/beta", "step 1").group("reviewers").await?;
    Ok(())
}
