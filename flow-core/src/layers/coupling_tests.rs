use candle_core::Device;

use super::*;
use crate::nn::{Mlp, MlpConfig};
use crate::testing::numbers::{normal, store64};
use crate::transformer::Additive;

fn coupling(shape: &[usize], partition: Partition) -> Result<Coupling<Additive, Mlp>> {
    Coupling::new(shape, partition, Additive, Mlp::new(&store64(0).root(), 1, 1, &MlpConfig::new(&[2])).unwrap())
}

fn mask(entries: &[f64]) -> Partition {
    Partition::Mask(Tensor::new(entries, &Device::Cpu).unwrap())
}

#[test]
fn a_partition_with_an_empty_side_is_refused_with_the_remedy() {
    let lone = Partition::checkerboard(&[3, 1, 1], false).unwrap();
    let cases: [(&[usize], Partition); 7] = [
        (&[1], Partition::Channels { swap: false }),
        (&[1, 4, 4], Partition::Channels { swap: true }),
        (&[3, 1, 1], lone),
        (&[1], Partition::alternating(1, false).unwrap()),
        (&[1], Partition::alternating(1, true).unwrap()),
        (&[2], mask(&[1.0, 1.0])),
        (&[2], mask(&[0.0, 0.0])),
    ];
    for (shape, partition) in cases {
        let message = coupling(shape, partition.clone()).map(drop).unwrap_err().to_string();
        assert!(message.contains("autoregressive"), "{shape:?}, {partition:?}: {message}");
    }
}

#[test]
fn other_partitions_of_small_events_stay() {
    coupling(&[2], Partition::Channels { swap: true }).unwrap();
    coupling(&[1, 2, 1], Partition::checkerboard(&[1, 2, 1], true).unwrap()).unwrap();
    coupling(&[2], mask(&[0.0, 1.0])).unwrap();
    assert!(coupling(&[2], mask(&[0.5, 1.0])).map(drop).unwrap_err().to_string().contains("0.5"));
}

#[test]
fn the_context_is_the_one_that_the_conditioner_declares() {
    let net = |context| Mlp::new(&store64(0).root(), 1, 1, &MlpConfig { context, ..MlpConfig::new(&[2]) }).unwrap();
    let layer = |net| Coupling::new(&[2], Partition::Channels { swap: false }, Additive, net).unwrap();
    assert_eq!(layer(net(Some(3))).context_shape(), Some(&[3][..]));
    assert_eq!(layer(net(None)).context_shape(), None);
    let missing = layer(net(Some(3))).encode(&normal(1, &[4, 2]), None);
    assert!(matches!(missing, Err(Error::Context { .. })));
}
