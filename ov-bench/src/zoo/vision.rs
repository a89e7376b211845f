//! Image classifiers in their published form, 1x3x224x224 in and 1000 classes out, with seeded weights.
//!
//! Convolutions are scaled as He et al. do (*Delving deep into rectifiers*, 2015, equation 10), so that activations
//! keep about unit size through the net; the last normalization of a residual branch is damped so that sums do too.

use super::graph::{Attribute, DataType, Graph};

/// ResNet-50 with the stride in the 3x3 convolution: He et al., *Deep residual learning for image recognition*, 2015.
pub(super) fn resnet50() -> Vec<u8> {
    let mut net = Net { graph: Graph::new("resnet50", 50) };
    let mut x = net.graph.input("input", DataType::F32, &[1, 3, 224, 224]);
    x = net.convolution(
        "stem",
        &x,
        Conv { channels: (3, 64), kernel: 7, stride: 2, groups: 1 },
        1.0,
    );
    x = net.graph.node("Relu", "stem/relu", &[&x], &[]);
    let window = [
        Attribute::Ints("kernel_shape", &[3, 3]),
        Attribute::Ints("strides", &[2, 2]),
        Attribute::Ints("pads", &[1, 1, 1, 1]),
    ];
    x = net.graph.node("MaxPool", "stem/pool", &[&x], &window);
    let mut channels = 64;
    for (stage, (width, blocks)) in [(64, 3), (128, 4), (256, 6), (512, 3)].iter().enumerate() {
        for block in 0..*blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("stage{stage}/block{block}");
            x = net.bottleneck(&name, &x, channels, *width, stride);
            channels = width * 4;
        }
    }
    net.classify(&x, channels)
}

/// `MobileNetV2` of width 1: Sandler et al., *Inverted residuals and linear bottlenecks*, 2018, table 2.
pub(super) fn mobilenet_v2() -> Vec<u8> {
    let mut net = Net { graph: Graph::new("mobilenet_v2", 2) };
    let mut x = net.graph.input("input", DataType::F32, &[1, 3, 224, 224]);
    x = net.convolution(
        "stem",
        &x,
        Conv { channels: (3, 32), kernel: 3, stride: 2, groups: 1 },
        1.0,
    );
    x = net.relu6("stem", &x);
    let mut channels = 32;
    let stages: [(i64, i64, i64, i64); 7] = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ];
    for (stage, (expansion, out, blocks, first_stride)) in stages.into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if block == 0 { first_stride } else { 1 };
            let name = format!("stage{stage}/block{block}");
            x = net.inverted_residual(&name, &x, (channels, out), expansion, stride);
            channels = out;
        }
    }
    let head = Conv { channels: (channels, 1280), kernel: 1, stride: 1, groups: 1 };
    x = net.convolution("head", &x, head, 1.0);
    x = net.relu6("head", &x);
    net.classify(&x, 1280)
}

struct Net {
    graph: Graph,
}

/// A square convolution, padded so that stride 1 keeps the size.
#[derive(Clone, Copy)]
struct Conv {
    /// In, out.
    channels: (i64, i64),
    kernel: i64,
    stride: i64,
    groups: i64,
}

impl Net {
    /// Convolution without bias and its batch normalization, whose scale is `gain` on average.
    fn convolution(&mut self, name: &str, x: &str, conv: Conv, gain: f32) -> String {
        let Conv { channels: (input, output), kernel, stride, groups } = conv;
        let fan_in = (input / groups * kernel * kernel) as f32;
        let shape = [output, input / groups, kernel, kernel];
        let graph = &mut self.graph;
        let w = graph.weights(&format!("{name}/weight"), &shape, 0.0, (2.0 / fan_in).sqrt());
        let pad = kernel / 2;
        let x = graph.node(
            "Conv",
            &format!("{name}/conv"),
            &[x, &w],
            &[
                Attribute::Ints("kernel_shape", &[kernel, kernel]),
                Attribute::Ints("strides", &[stride, stride]),
                Attribute::Ints("pads", &[pad, pad, pad, pad]),
                Attribute::Int("group", groups),
            ],
        );
        let scale = graph.weights(&format!("{name}/scale"), &[output], gain, 0.05 * gain);
        let shift = graph.weights(&format!("{name}/shift"), &[output], 0.0, 0.05);
        let mean = graph.weights(&format!("{name}/mean"), &[output], 0.0, 0.05);
        let variance = graph.weights(&format!("{name}/variance"), &[output], 1.0, 0.05);
        let inputs = [x.as_str(), &scale, &shift, &mean, &variance];
        let epsilon = [Attribute::Float("epsilon", 1e-5)];
        graph.node("BatchNormalization", &format!("{name}/norm"), &inputs, &epsilon)
    }

    fn bottleneck(&mut self, name: &str, x: &str, input: i64, width: i64, stride: i64) -> String {
        let output = width * 4;
        let part = |part: &str| format!("{name}/{part}");
        let reduce = Conv { channels: (input, width), kernel: 1, stride: 1, groups: 1 };
        let mut y = self.convolution(&part("reduce"), x, reduce, 1.0);
        y = self.graph.node("Relu", &part("reduce/relu"), &[&y], &[]);
        let spatial = Conv { channels: (width, width), kernel: 3, stride, groups: 1 };
        y = self.convolution(&part("spatial"), &y, spatial, 1.0);
        y = self.graph.node("Relu", &part("spatial/relu"), &[&y], &[]);
        let expand = Conv { channels: (width, output), kernel: 1, stride: 1, groups: 1 };
        y = self.convolution(&part("expand"), &y, expand, DAMPING);
        let shortcut = if input == output {
            x.to_owned()
        } else {
            let project = Conv { channels: (input, output), kernel: 1, stride, groups: 1 };
            self.convolution(&part("project"), x, project, 0.5f32.sqrt())
        };
        let sum = self.graph.node("Add", &part("add"), &[&y, &shortcut], &[]);
        self.graph.node("Relu", &part("relu"), &[&sum], &[])
    }

    fn inverted_residual(
        &mut self,
        name: &str,
        x: &str,
        (input, output): (i64, i64),
        expansion: i64,
        stride: i64,
    ) -> String {
        let part = |part: &str| format!("{name}/{part}");
        let width = input * expansion;
        let mut y = x.to_owned();
        if expansion > 1 {
            let expand = Conv { channels: (input, width), kernel: 1, stride: 1, groups: 1 };
            y = self.convolution(&part("expand"), &y, expand, 1.0);
            y = self.relu6(&part("expand"), &y);
        }
        let depthwise = Conv { channels: (width, width), kernel: 3, stride, groups: width };
        y = self.convolution(&part("depthwise"), &y, depthwise, 1.0);
        y = self.relu6(&part("depthwise"), &y);
        let keeps = stride == 1 && input == output;
        let project = Conv { channels: (width, output), kernel: 1, stride: 1, groups: 1 };
        y = self.convolution(&part("project"), &y, project, if keeps { DAMPING } else { 1.0 });
        if keeps { self.graph.node("Add", &part("add"), &[x, &y], &[]) } else { y }
    }

    fn relu6(&mut self, name: &str, x: &str) -> String {
        let low = self.graph.scalar(&format!("{name}/zero"), 0.0);
        let high = self.graph.scalar(&format!("{name}/six"), 6.0);
        self.graph.node("Clip", &format!("{name}/relu6"), &[x, &low, &high], &[])
    }

    fn classify(mut self, x: &str, channels: i64) -> Vec<u8> {
        let graph = &mut self.graph;
        let x = graph.node("GlobalAveragePool", "pool", &[x], &[]);
        let x = graph.node("Flatten", "flatten", &[&x], &[Attribute::Int("axis", 1)]);
        let deviation = (1.0 / channels as f32).sqrt();
        let w = graph.weights("classifier/weight", &[1000, channels], 0.0, deviation);
        let b = graph.weights("classifier/bias", &[1000], 0.0, 0.05);
        graph.node("Gemm", "logits", &[&x, &w, &b], &[Attribute::Int("transB", 1)]);
        graph.output("logits", &[1, 1000]);
        self.graph.finish()
    }
}

/// Scale of a residual branch against its sum.
const DAMPING: f32 = 0.3;
