//! `starfish on`: functions that run when a file or key changes.

use starfish_node::compute::schedule::Source;
use starfish_node::wire::TriggerRequest;

use super::Context;
use super::batch::absolute;
use super::cron::{calls, told};
use crate::output::table::Table;

/// Have functions called when a file or key changes; without more, list what calls what.
///
/// Each change is one job of the swarm, that calls the function with the path or key as its last argument; `starfish logs`
/// shows what it said. A file can be read under its path, the value of a key is standard input. STARFISH_CHANGE says `written`, or
/// `deleted` for a key that is gone (that a file is removed calls nothing); STARFISH_VERSION tells changes apart, and grows. Of many
/// changes of one path or key within a second the last one counts. If the node whose turn it is is lost, another one does it
/// some seconds later.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  starfish on add thumbs --file '/photos/**/*.jpg' thumbnail 64 64\n  \
                        starfish on add alarm --key 'sensors/*' check-limits\n  starfish on\n  starfish on rm thumbs")]
pub struct On {
    #[command(subcommand)]
    action: Option<Action>,
    /// As one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// Add a trigger, or put it in place of that of this name.
    Add {
        /// Files of the tree to listen to, such as '/inbox/**'.
        #[arg(long, value_name = "PATTERN", required_unless_present = "key", conflicts_with = "key")]
        file: Option<String>,
        /// The key to listen to; with a `*` at its end, all keys that begin so.
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// The space that keys are in.
        #[arg(long, value_name = "NAME", default_value = "default", requires = "key")]
        space: String,
        /// Also call a function that can write to where the trigger listens: it may call itself, once a second for each
        /// path.
        #[arg(long)]
        allow_loop: bool,
        /// What the trigger is called.
        name: String,
        /// The function, and its arguments before the path or key: everything behind it is its own.
        #[arg(value_names = ["FUNCTION", "ARGS"], num_args = 1.., required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// List the triggers, and how their last time went.
    #[command(visible_alias = "ls")]
    List {
        /// As one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Forget a trigger. What it has begun goes on.
    #[command(name = "rm", visible_alias = "remove")]
    Remove {
        /// The trigger.
        name: String,
    },
}

impl On {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        match self.action {
            None => list(&mut context, self.json).await?,
            Some(Action::List { json }) => list(&mut context, json || self.json).await?,
            Some(Action::Add { file, key, space, allow_loop, name, command }) => {
                let source = match (file, key) {
                    (Some(pattern), _) => Source::Files(absolute(&context.cwd, &pattern)?),
                    (None, key) => Source::Keys { space, pattern: key.unwrap_or_default() },
                };
                let mut words = command.into_iter();
                let function = words.next().unwrap_or_default().parse()?;
                let trigger = TriggerRequest { source, function, args: words.collect(), allow_loop };
                context.client.add_trigger(&name, &trigger).await?;
            }
            Some(Action::Remove { name }) => context.client.remove_trigger(&name).await?,
        }
        Ok(0)
    }
}

async fn list(context: &mut Context, json: bool) -> anyhow::Result<()> {
    let triggers = context.client.triggers().await?;
    if json {
        return context.print_json(&triggers).await;
    }
    let mut table = Table::new(["NAME", "LISTENS TO", "LAST", "ABOUT", "JOB", "STATE", "CALLS"]);
    for trigger in &triggers {
        let (last, job, state) = trigger.last.as_ref().map_or_else(Default::default, told);
        let about = trigger.last.as_ref().and_then(|last| last.about.clone()).unwrap_or_default();
        table.row([
            trigger.name.to_string(),
            trigger.source.to_string(),
            last,
            about,
            job,
            state,
            calls(trigger.function.as_str(), &trigger.args),
        ]);
    }
    if !triggers.is_empty() {
        context.print(table.to_string().trim_end()).await?;
    }
    Ok(())
}
