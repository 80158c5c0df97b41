//! The families' numbers, as they were when first recorded: names and initial values of parameters, likelihoods,
//! latents, samples and gradients of small models from a fixed seed.
//!
//! A checkpoint is names and values, so a model that is built otherwise but has other names, other initial
//! values or another likelihood is another model. Everything is in f64, where a kernel's order of summation
//! does not show at the tolerance.

use candle_core::{DType, Device, Tensor};
use flow_core::Backprop;
use flow_core::testing::randomise;
use flow_core::{FlowRng, Gradients, ParamStore};

use super::*;

/// What is kept of one model.
struct Kept {
    config: ModelConfig,
    spec: ImageSpec,
    /// Number of parameters and buffers, and the hash of their names and shapes.
    names: (usize, u64),
    /// Checksum of the initial values.
    initial: f64,
    /// `log P(x)` of two images after initialisation and a random step.
    log_prob: [f64; 2],
    /// Checksum of the whitened latents, and of levels sampled at temperature 0.7.
    latents: f64,
    samples: f64,
    /// Bits/dim, class objective, penalty, and the checksum of all gradients.
    step: [f64; 4],
}

impl Kept {
    fn numbers(&self) -> [f64; 9] {
        let ([first, second], [bits, class, penalty, gradients]) = (self.log_prob, self.step);
        [self.initial, first, second, self.latents, self.samples, bits, class, penalty, gradients]
    }
}

/// The numbers of every family, with the options that change its layers.
fn kept() -> [Kept; 5] {
    let glow = GlowConfig { levels: 2, steps: 2, width: 6, ..Default::default() };
    let conditional = GlowConfig {
        steps: 1,
        coupling: GlowCoupling::Additive,
        permutation: GlowPermutation::Full,
        class_condition: Some(3),
        class_weight: 0.5,
        ..glow.clone()
    };
    let realnvp = RealNvpConfig { scales: 2, base_width: 4, blocks: 1, l2: 0.01, ..Default::default() };
    let nice = NiceConfig { couplings: 3, hidden_layers: 1, width: 6, prior: NicePrior::Logistic };
    let odd = NiceConfig { couplings: 2, hidden_layers: 2, width: 6, prior: NicePrior::Gaussian };
    let spec = |c, h, w, levels| ImageSpec::new(c, h, w, levels).unwrap();
    [
        Kept {
            config: ModelConfig::Glow(glow),
            spec: spec(1, 8, 4, 17),
            names: (75, 0x96d1_3e33_db70_b0a0),
            initial: 27.56292084504228,
            log_prob: [-108.9023005409032, -101.4385317074421],
            latents: -12.320361446777326,
            samples: 1431.866206590988,
            step: [4.86316904337559, 0.0, 0.0, 39.2261372330106],
        },
        Kept {
            config: ModelConfig::Glow(conditional),
            spec: spec(3, 4, 4, 32),
            names: (39, 0x6c6d_7fe1_8340_59d4),
            initial: -6.73580492688529,
            log_prob: [-180.0180691042804, -194.02157127659555],
            latents: 4.342541344925265,
            samples: 4643.096858429022,
            step: [5.54939320593632, -1.079203086952803, 0.0, 1.6477490725400707],
        },
        Kept {
            config: ModelConfig::RealNvp(realnvp),
            spec: spec(1, 4, 6, 256),
            names: (300, 0x0d3c_b709_b85a_2e13),
            initial: 371.6016833694446,
            log_prob: [-131.60023235642336, -133.87927121329076],
            latents: -1.4532264334429492,
            samples: 18730.267401456815,
            step: [7.99629665398646, 0.0, 1.3395971960068627, -0.3333602714121901],
        },
        Kept {
            config: ModelConfig::Nice(nice),
            spec: spec(1, 4, 4, 17),
            names: (13, 0xb988_9543_3e38_dd0a),
            initial: -5.335598157808714,
            log_prob: [-69.45786076931716, -68.989282489768],
            latents: 16.970027042197056,
            samples: 485.04285270766394,
            step: [6.239178781751973, 0.0, 0.0, 0.4293406001119473],
        },
        Kept {
            config: ModelConfig::Nice(odd),
            spec: spec(3, 3, 1, 8),
            names: (13, 0x2a89_2cd7_7eaa_b0aa),
            initial: -8.651261671075634,
            log_prob: [-28.178297300568868, -28.903476850364893],
            latents: 9.14376194966356,
            samples: 125.25312187515574,
            step: [4.5507745053687465, 0.0, 0.0, 1.086245731722351],
        },
    ]
}

/// A weighted sum that notices values and their order.
fn checksum<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> f64 {
    let values = tensors
        .into_iter()
        .flat_map(|t| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap());
    values.enumerate().map(|(i, v)| v * (1.0 + (i as f64).sin())).sum()
}

fn name_hash(store: &ParamStore) -> (usize, u64) {
    let all = store.all();
    let text: String = all.iter().map(|p| format!("{} {:?} {}\n", p.name(), p.var().dims(), p.trainable())).collect();
    let fnv = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    (all.len(), text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// Everything [`Kept`] holds, measured now.
fn measure(config: &ModelConfig, spec: &ImageSpec) -> Kept {
    let store = ParamStore::new(11, DType::F64, &Device::Cpu);
    let model = ImageModel::new(config, spec, &store).unwrap();
    let values: Vec<Tensor> = store.all().iter().map(|p| p.var().as_detached_tensor()).collect();
    let (names, initial) = (name_hash(&store), checksum(&values));

    let [c, h, w] = spec.event_shape();
    let mut rng = FlowRng::seed_from(21);
    let levels = rng.uniform((6, c, h, w), DType::F32, &Device::Cpu).unwrap();
    let levels = levels.affine(spec.levels as f64, 0.0).unwrap().floor().unwrap();
    let labels = [0, 1, 2, 2, 1, 0];
    model.initialize(&levels, Some(&labels), &mut rng).unwrap();
    randomise(&store, 0.05, &mut rng).unwrap();
    // Running averages, where there are any, move to where training would bring them.
    for _ in 0..20 {
        model.log_prob(&levels, Some(&labels), &mut rng).unwrap();
    }

    let mut gradients = Gradients::new(&store);
    let step = model.backward(&levels, Some(&labels), &mut rng, Backprop::Reversible, &mut gradients).unwrap();
    assert!(!step.fell_back);
    let gradients = checksum(gradients.iter().map(|(p, g)| g.unwrap_or_else(|| panic!("{} has none", p.name()))));

    model.set_training(false);
    let (two, two_labels) = (levels.narrow(0, 0, 2).unwrap(), Some(&labels[..2]));
    let log_prob = model.log_prob(&two, two_labels, &mut rng).unwrap().to_vec1::<f64>().unwrap();
    let latents = model.encode(&two, two_labels).unwrap().0;
    let samples = model.sample(6, Some(&labels), &[0.7], &mut rng).unwrap();
    Kept {
        config: config.clone(),
        spec: *spec,
        names,
        initial,
        log_prob: [log_prob[0], log_prob[1]],
        latents: checksum(&latents.0),
        samples: checksum([&samples]),
        step: [step.bits_per_dim, step.auxiliary.unwrap_or(0.0), step.penalty, gradients],
    }
}

#[test]
fn names_values_likelihoods_samples_and_gradients_are_as_recorded() {
    for kept in kept() {
        let now = measure(&kept.config, &kept.spec);
        assert_eq!(now.names, kept.names, "{:?}", kept.config);
        for (i, (now, kept_number)) in now.numbers().iter().zip(kept.numbers()).enumerate() {
            let off = (now - kept_number).abs() / (1.0 + kept_number.abs());
            assert!(off < 1e-6, "{:?}: number {i} is {now}, was {kept_number}", kept.config);
        }
    }
}
