use super::{channel, fill, notifying::time_passes, user};
use crate::{Later, Storage, entity::notification_walks, error::Result};
use sea_orm::{EntityTrait, sea_query::Expr};
use touchline_ids::Seq;
use uuid::Uuid;

pub async fn a_walk_finds_who_has_not_acked_and_goes_on_where_another_left_it(
    one: Storage,
    two: Storage,
) -> Result<()> {
    let mut people = Vec::new();
    for _ in 0..10 {
        people.push(user(&one).await?);
    }
    people.sort();
    let (id, owner) = (channel(&one, people[0], &people[1..]).await?, Uuid::now_v7());
    fill(&one, id, people[0], 4).await?;
    fill(&one, id, people[3], 1).await?;
    one.notify_all(&[], &[(id, Seq(4)), (id, Seq(5))]).await?;
    assert!(
        (4_000..=5_000).contains(&one.next_walk_ms().await?.expect("there is one")),
        "acks are given time to arrive"
    );
    assert_eq!(one.claim_walk(owner).await?, None);
    two.delivered(&[(people[1], id, Seq(5)), (people[2], id, Seq(4))]).await?;
    two.mark_read(people[4], id, Seq(6)).await?;
    time_passes(&one).await?;
    let walk = one.claim_walk(owner).await?.expect("there is one");
    assert_eq!((walk.channel_id, walk.walk_seq, walk.after_user_id), (id, Seq(5), None));
    assert_eq!(two.claim_walk(Uuid::now_v7()).await?, None, "claimed");
    let page = one.walk_page(&walk, 4).await?;
    let found: Vec<_> = page.unreached.iter().map(|member| (member.user, member.count)).collect();
    assert_eq!(found, [(people[2], 1), (people[3], 5), (people[5], 5)], "the sender of the last message has read");
    assert_eq!(page.last, Some(people[5]));
    // The message of people[3] lies behind the walk's place, and the sender of the last one there is people[0].
    let later = |user, after_ms, put_off| Later { user, count: 1, after_ms, put_off };
    let laters = [later(people[2], Some(60_000), true), later(people[3], None, false)];
    assert!(one.hold_walk(owner, id).await?);
    assert!(one.advance_walk(owner, &walk, page.last, &laters).await?);
    assert_eq!(one.pending_notifications(id).await?, [(people[2], Seq(5), 1)]);
    assert_eq!(one.notification_letters(true, None, 10).await?[0].user_id, people[3]);

    // Its notifier dies; another one goes on.
    let other = Uuid::now_v7();
    let claims = notification_walks::Entity::update_many();
    claims.col_expr(notification_walks::Column::ClaimUntil, Expr::value(0)).exec(&one.writer).await?;
    let walk = two.claim_walk(other).await?.expect("there is one");
    assert_eq!((walk.after_user_id, walk.attempts), (Some(people[5]), 1));
    assert!(!one.hold_walk(owner, id).await?, "somebody else's by now");
    assert!(!one.advance_walk(owner, &walk, None, &[later(people[9], Some(0), false)]).await?);
    assert_eq!(one.pending_notifications(id).await?.len(), 1, "nothing is noted");
    two.notify_all(&[], &[(id, Seq(6))]).await?;
    let page = two.walk_page(&walk, 10).await?;
    assert_eq!(page.unreached.iter().map(|member| member.user).collect::<Vec<_>>(), people[6..]);
    assert_eq!(page.last, None);
    assert!(two.advance_walk(other, &walk, None, &[]).await?);
    assert!((4_000..=5_000).contains(&two.next_walk_ms().await?.expect("there is one")), "more has come meanwhile");
    notification_walks::Entity::update_many()
        .col_expr(notification_walks::Column::NotBefore, Expr::value(1))
        .exec(&one.writer)
        .await?;
    let walk = one.claim_walk(owner).await?.expect("there is one");
    assert_eq!((walk.walk_seq, walk.walked_seq, walk.after_user_id), (Seq(6), Seq(5), None));
    let waiting: Vec<_> = one.walk_page(&walk, 10).await?.unreached;
    let waits: Vec<_> = waiting.iter().filter(|member| member.waits).map(|member| member.user).collect();
    assert_eq!(waits, [people[2]], "who has a row that waits is not sent another push");
    assert!(one.leave_walk(owner, id).await?);
    let again = Uuid::now_v7();
    assert!(two.claim_walk(again).await?.is_some(), "let go, somebody else goes on at once");
    assert!(two.advance_walk(again, &walk, None, &[]).await?);
    assert_eq!(one.next_walk_ms().await?, None);
    Ok(())
}
