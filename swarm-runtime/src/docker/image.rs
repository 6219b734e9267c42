//! Pulls images as Swarm does: always tried, and a failure matters only if the image is absent.

use std::time::Duration;

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::TryStreamExt as _;
use swarm_core::executor::{ExecError, ExecErrorKind};
use swarm_core::model::SecretBytes;

use super::DockerExecutor;
use super::engine::{classify, status, with_registry_auth};

/// A registry may take its time before the first byte of an answer.
const PATIENCE: Duration = Duration::from_secs(3600);

impl DockerExecutor {
    /// Makes an image present, or at least tries (moby: `executor/container`, `Prepare`).
    ///
    /// # Errors
    /// `Rejected` with `No such image: …` when it is absent after all, and why it could not be
    /// pulled; `Temporary` when the engine does not answer.
    pub(super) async fn pull(
        &self,
        image: &str,
        auth: Option<&SecretBytes>,
    ) -> Result<(), ExecError> {
        // What a digest names never changes.
        let settled = self.config.prefer_offline_image || image.contains('@');
        if settled && self.has_image(image).await? {
            return Ok(());
        }
        let auth = auth.and_then(|auth| std::str::from_utf8(auth.expose()).ok());
        let docker = with_registry_auth(self.docker.clone(), auth, None).with_timeout(PATIENCE);
        let options = CreateImageOptionsBuilder::new().from_image(&tagged(image)).build();
        let pulled: Result<Vec<_>, _> =
            docker.create_image(Some(options), None, None).try_collect().await;
        let Err(error) = pulled else { return Ok(()) };
        if self.has_image(image).await? {
            tracing::info!(image, %error, "the image could not be pulled, the present one serves");
            return Ok(());
        }
        let why = classify(ExecErrorKind::Rejected, "pulling", error);
        Err(ExecError { message: format!("No such image: {image} ({})", why.message), ..why })
    }

    async fn has_image(&self, image: &str) -> Result<bool, ExecError> {
        match self.docker.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(status(&error), Some(400 | 404)) => Ok(false),
            Err(error) => Err(classify(ExecErrorKind::Temporary, "inspecting an image", error)),
        }
    }
}

/// A reference without tag and digest means `latest`; the engine would pull every tag.
fn tagged(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
mod tests {
    use super::tagged;

    #[test]
    fn references_get_a_tag_where_they_lack_one() {
        for (image, pulled) in [
            ("busybox", "busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("host:5000/team/app", "host:5000/team/app:latest"),
            ("host:5000/team/app:2", "host:5000/team/app:2"),
            ("app@sha256:abc", "app@sha256:abc"),
        ] {
            assert_eq!(tagged(image), pulled);
        }
    }
}
