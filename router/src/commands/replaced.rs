//! Commands of Weave Net's script that have another name here, or none.

use super::CliError;

/// Each command, and what to do instead.
const REPLACED: &[(&str, &str)] = &[
    (
        "setup",
        "nothing has to be downloaded first: run 'weft launch'; for Kubernetes and other CNI \
         runtimes, 'weft setup-cni'",
    ),
    (
        "start",
        "containers that an engine started keep their addresses: give them the network instead, \
         'docker run --network weft ...', or attach the running one, 'weft attach NAME'",
    ),
    (
        "restart",
        "restart the container with its engine ('docker restart NAME'); a container with an \
         identity keeps its address",
    ),
    (
        "run",
        "use 'docker run --network weft ...', or start the container as usual and then 'weft \
         attach NAME'",
    ),
    (
        "env",
        "no proxy stands before the engine any more: give containers '--network weft', or label \
         them for 'weft launch --attach=labels'",
    ),
    (
        "config",
        "no proxy stands before the engine any more: give containers '--network weft', or label \
         them for 'weft launch --attach=labels'",
    ),
    (
        "launch-router",
        "the router and the plugin are one process: run 'weft launch'",
    ),
    (
        "launch-plugin",
        "the router serves the plugin: run 'weft launch', with --plugin=false to go without it",
    ),
    (
        "launch-proxy",
        "no proxy stands before the engine any more: give containers '--network weft'",
    ),
    ("stop-router", "run 'weft stop'"),
    (
        "stop-plugin",
        "run 'weft stop': the router serves the plugin",
    ),
    (
        "stop-proxy",
        "there is no proxy: 'weft stop' ends all of weft",
    ),
];

/// Returns the error that a command of Weave Net's script gets here, if the first word is one.
pub(super) fn explain(word: &str) -> Option<CliError> {
    let (_, instead) = REPLACED.iter().find(|(name, _)| *name == word)?;
    Some(CliError::usage(format!(
        "weft has no command '{word}' as Weave Net has: {instead}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_weave_say_what_replaces_them() {
        for (word, _) in REPLACED {
            let error = explain(word).unwrap().to_string();
            assert!(error.contains(&format!("'{word}'")), "{error}");
            assert!(error.contains("weft") && !error.contains("  "), "{error}");
        }
        assert!(explain("status").is_none());
    }
}
