//! From an engine directory to a backend: everything that can be checked is checked before anything is loaded.

use super::{
    asked::Rules,
    backend::{Parts, TensorRtLlm},
    coverage::Expected,
    driver::{Driver, library_error},
    refit::{Refitter, Tier},
    requests::{Surroundings, Table},
};
use crate::{
    engine::{EngineConfig, EngineDtype, EngineModel, Error, RefitMode, RefitTier, config::rule},
    ffi::tensorrt_llm::{Capabilities, Description, Executor, ExecutorOptions, Library},
    model::{
        ModelSpec,
        tensorrt_llm::{EngineDir, Wanted},
    },
    rollout::Dtype,
};

/// Calls are given up a little before the callers' own deadline: this error knows more than theirs.
const SHARE_OF_DEADLINE: f64 = 0.8;

impl TensorRtLlm {
    /// Opens the engine directory of the configuration, for this policy, with the library of the configuration, and puts
    /// the policy's weights in.
    ///
    /// # Errors
    /// One line: TensorRT-LLM is not in this build, or of a version that is refused; the directory is damaged or of another
    /// model; the engine cannot be loaded or its tensors are not the policy's.
    pub fn open(config: &EngineConfig, model: EngineModel) -> Result<Self, Error> {
        if config.tensorrt_llm.double {
            return Self::open_with(Library::Double, config, model);
        }
        let description = describe(Library::TensorRtLlm)?;
        if description.is_double {
            return Err(Error::Model(format!(
                "TensorRT-LLM is not linked into this build, which has a stand-in for tests ({}): build where \
                 TensorRT-LLM is installed, or set tensorrt_llm.double to generate with the contract double",
                description.name
            )));
        }
        Self::open_with(Library::TensorRtLlm, config, model)
    }

    /// Does what [`TensorRtLlm::open`] does, with this library, whatever it is. For tests of the shim over its stand-in.
    ///
    /// # Errors
    /// As [`TensorRtLlm::open`].
    pub fn open_with(
        library: Library,
        config: &EngineConfig,
        model: EngineModel,
    ) -> Result<Self, Error> {
        config.validate()?;
        let description = describe(library)?;
        if let Some(reason) = description.refusal {
            return Err(Error::Library { library: description.name, call: "open".into(), reason });
        }
        let dir = engine_dir(config, &model.spec)?;
        let tier = tier(config, &dir, &description)?;
        let parts = parts(config, &model, dir, &description, library)?;
        let table = Table::new(Surroundings {
            capacity: capacity(&parts.options),
            vocab_size: parts.rules.vocab_size,
            capabilities: description.capabilities,
            tokenizer: model.tokenizer.clone(),
            library: description.name.clone(),
        });
        let driver = Driver::start(parts.deadline)?;
        let mut backend = Self::new(parts, driver, table, Refitter::new(tier));
        backend.introduce(&description);
        backend.load(&model)?;
        Ok(backend)
    }

    /// Says what generates, and which way weights get in.
    fn introduce(&mut self, description: &Description) {
        let name = &description.name;
        if description.is_double {
            self.notes.push(format!(
                "{name}: generates on the CPU in place of TensorRT-LLM: slow, and no proof of anything on a GPU"
            ));
        }
        if let Some(warning) = &description.warning {
            self.notes.push(format!("{name}: {warning}"));
        }
        let way = match self.refitter.tier {
            Tier::InPlace => "refits go into the live engine",
            Tier::Rebuild => "refits rebuild the engine from its plan: slow, and twice the memory",
            Tier::None => {
                "the engine was built without use_refit: it serves the weights it was built with"
            }
        };
        let version = Some(&description.trtllm).filter(|version| !version.is_empty());
        let version = version.map(|version| format!(" {version}")).unwrap_or_default();
        self.notes.push(format!("{name}{version}: {way}"));
    }

    /// Starts the engine with the policy's weights in it.
    fn load(&mut self, model: &EngineModel) -> Result<(), Error> {
        self.version = model.weights.version();
        if self.refitter.tier != Tier::Rebuild {
            let (library, options) = (self.parts.library, self.parts.options.clone());
            let dir = self.parts.engine_dir.clone();
            let opened = self.call(move |seat| {
                seat.enter("the start of an executor");
                seat.executor = Some(Executor::open(library, &dir, &options)?);
                Ok(())
            });
            opened.map_err(|failure| failure.named(&self.parts.name))?;
        }
        if self.refitter.tier == Tier::None {
            self.state.step(super::state::Phase::Verifying)?;
        } else {
            let report = self.put_weights(&model.weights, RefitMode::Alias, false);
            let report = report.map_err(|error| match error {
                // There is no older version that could go on serving.
                Error::Refit { tensor, reason, .. } => Error::Model(format!("{tensor}: {reason}")),
                other => other,
            })?;
            self.notes.push(format!(
                "{}: the policy's {} tensors were put into the engine in {:.3} s",
                self.parts.name, report.tensors, report.seconds
            ));
        }
        let leads = self.call(|seat| {
            seat.enter("a look for the leader");
            seat.executor()?.can_enqueue()
        });
        if leads.map_err(|failure| failure.named(&self.parts.name))? {
            return Ok(());
        }
        Err(self.error("open", "this rank is not the leader, which alone takes requests"))
    }
}

fn describe(library: Library) -> Result<Description, Error> {
    library.describe().map_err(|error| library_error("tensorrt-llm", error))
}

/// Reads the engine directory and checks it against the policy.
fn engine_dir(config: &EngineConfig, spec: &ModelSpec) -> Result<EngineDir, Error> {
    let settings = &config.tensorrt_llm;
    let named = settings.engine_dir.as_ref();
    let rules = "the directory of a built engine (see `rollforge engine build`)";
    rule(named.is_some(), "tensorrt_llm.engine_dir", rules, "none")?;
    let path = named.cloned().unwrap_or_default();
    let failed = |error: crate::model::tensorrt_llm::Error| Error::Model(error.to_string());
    let dir = EngineDir::open(&path).map_err(failed)?;
    let wanted = Wanted {
        dtype: match config.dtype {
            EngineDtype::Auto => None,
            EngineDtype::F32 => Some(Dtype::F32),
            EngineDtype::Bf16 => Some(Dtype::Bf16),
        },
        // Every rank would have to refit with the leader.
        tensor_parallel: Some(1),
        refit: settings.refit != RefitTier::Auto,
        ..Wanted::default()
    };
    dir.check(spec, &wanted).map_err(failed)?;
    rule(
        dir.build.paged_context || !settings.block_reuse,
        "tensorrt_llm.block_reuse",
        "false for an engine without use_paged_context_fmha",
        true,
    )?;
    Ok(dir)
}

/// Chooses the way weights get in.
fn tier(config: &EngineConfig, dir: &EngineDir, library: &Description) -> Result<Tier, Error> {
    let able = |capability| library.capabilities.contains(capability);
    let (in_place, rebuild) = (able(Capabilities::REFIT_IN_PLACE), able(Capabilities::REBUILD));
    let field = "tensorrt_llm.refit";
    match config.tensorrt_llm.refit {
        RefitTier::InPlace => {
            rule(in_place, field, "one that this library can do, such as rebuild", "in_place")?;
            Ok(Tier::InPlace)
        }
        RefitTier::Rebuild => {
            rule(rebuild, field, "one that this library can do, such as in_place", "rebuild")?;
            Ok(Tier::Rebuild)
        }
        RefitTier::Auto if !dir.build.use_refit => Ok(Tier::None),
        RefitTier::Auto if in_place => Ok(Tier::InPlace),
        RefitTier::Auto if rebuild => Ok(Tier::Rebuild),
        RefitTier::Auto => Ok(Tier::None),
    }
}

fn parts(
    config: &EngineConfig,
    model: &EngineModel,
    dir: EngineDir,
    description: &Description,
    library: Library,
) -> Result<Parts, Error> {
    let settings = &config.tensorrt_llm;
    let salted = description.capabilities.contains(Capabilities::CACHE_SALT);
    rule(
        salted || !settings.block_reuse,
        "tensorrt_llm.block_reuse",
        "false with this version of TensorRT-LLM, which cannot keep blocks of older weights away",
        true,
    )?;
    // TensorRT-LLM takes the window from settings of the KV cache that are not made here.
    let window = model.spec.sliding_window.filter(|_| !description.is_double);
    let seen = window.is_none_or(|window| dir.build.max_seq_len <= window);
    rule(
        seen,
        "max_seq_len of the engine",
        "at most the policy's sliding window",
        dir.build.max_seq_len,
    )?;
    let rules = Rules {
        vocab_size: model.spec.vocab_size,
        // Without chunks a prompt must go into one step.
        max_input_len: match dir.build.paged_context {
            true => dir.build.max_input_len,
            false => dir.build.max_input_len.min(dir.build.max_num_tokens),
        },
        max_seq_len: dir.build.max_seq_len.min(model.spec.max_positions),
        kv_tokens: (config.kv_cache_tokens > 0).then_some(config.kv_cache_tokens),
        tokens_per_block: dir.build.tokens_per_block.max(1),
        eos: model.eos.clone(),
        has_tokenizer: model.tokenizer.is_some(),
        capabilities: description.capabilities,
    };
    let expected = Expected {
        layout: dir.layout(&model.spec),
        dtype: dir.pretrained.spec.dtype,
        spec: model.spec.clone(),
        rank: 0,
    };
    Ok(Parts {
        library,
        name: description.name.clone(),
        capabilities: description.capabilities,
        rules,
        expected,
        options: options(config, &dir),
        may_rebuild: settings.refit == RefitTier::Auto
            && description.capabilities.contains(Capabilities::REBUILD),
        fixed: dir.fixed_weights().map_err(|error| Error::Model(error.to_string()))?,
        plan: dir.engine_file(0),
        engine_dir: dir.path,
        config_json: dir.config_json,
        deadline: config.deadline().mul_f64(SHARE_OF_DEADLINE),
    })
}

fn options(config: &EngineConfig, dir: &EngineDir) -> ExecutorOptions {
    let settings = &config.tensorrt_llm;
    let whole = |size: usize| i32::try_from(size).unwrap_or(i32::MAX);
    ExecutorOptions {
        max_batch_size: whole(config.max_batch.min(dir.build.max_batch_size)),
        // What the engine was built for; the embedded engine's default suits a CPU.
        max_num_tokens: 0,
        kv_max_tokens: i64::try_from(config.kv_cache_tokens).unwrap_or(i64::MAX),
        kv_free_fraction: settings.kv_free_fraction,
        block_reuse: settings.block_reuse,
        chunked_context: dir.build.paged_context,
        iteration_stats: 1,
        // Requests wait here, not there.
        max_queue_size: 0,
        device_ids: settings.device_ids.clone(),
        participant_ids: settings.participant_ids.clone(),
        capture_engine: dir.build.use_refit && settings.refit != RefitTier::Rebuild,
    }
}

/// Returns how many sequences may be in the executor: a full batch, and a few in its queue so that none of its slots stays
/// empty while a response is on its way here and a request on its way back.
fn capacity(options: &ExecutorOptions) -> usize {
    let batch = usize::try_from(options.max_batch_size).unwrap_or(0).max(1);
    batch + batch.div_ceil(4)
}
