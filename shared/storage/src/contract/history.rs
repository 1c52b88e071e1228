use super::{channel, fill, log, seqs, user};
use crate::{Storage, error::Result};
use touchline_ids::Seq;

pub async fn a_log_is_read_in_pages_both_ways(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    fill(&one, id, ada, 9).await?;
    let page = async |after: Option<i64>, before: Option<i64>, limit| -> Result<(Vec<i64>, bool)> {
        let page = two.history(ada, id, after.map(Seq), before.map(Seq), limit).await?.expect("ada is in it");
        Ok((seqs(&page.entries), page.more))
    };
    assert_eq!(page(None, None, 4).await?, (vec![7, 8, 9, 10], true));
    assert_eq!(page(None, Some(7), 4).await?, (vec![3, 4, 5, 6], true));
    assert_eq!(page(None, Some(3), 4).await?, (vec![1, 2], false));
    assert_eq!(page(None, Some(1), 4).await?, (vec![], false));
    assert_eq!(page(Some(0), None, 4).await?, (vec![1, 2, 3, 4], true));
    assert_eq!(page(Some(8), None, 4).await?, (vec![9, 10], false));
    assert_eq!(page(Some(10), None, 4).await?, (vec![], false));
    assert_eq!(page(Some(2), Some(5), 4).await?, (vec![3, 4], false));

    let all = two.history(ada, id, None, None, 100).await?.expect("ada is in it");
    assert_eq!(all.entries, log(&one, id).await?);
    Ok(())
}
