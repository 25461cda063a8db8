use burn::tensor::{Device, DeviceKind, Tensor};
use cinderlm_kernels::*;
use cinderlm_weights::*;
#[test]
fn speed() {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    for (name, profile) in [("software", Profile::software()), ("gpu", Profile::gpu())] {
        for (r, c) in [(12288, 576), (576, 1536), (576,576)] {
        let layout = PackedLayout { format: PackedFormat::new(BlockType::Q4_1), n_rows: r, n_cols: c, interleave: Interleave::Tiles32 };
        let w = PackedMatrix::from_packed(PackedTensor { layout, words: vec![0; layout.n_words()] }, &device).unwrap();
        for n in [1usize, 4, 16] {
            let x = Tensor::<2>::ones([n, c], &device);
            let run = |k: usize| { let t = std::time::Instant::now(); let mut y = None; for _ in 0..k { y = Some(linear(x.clone(), &w, None, profile)); } let v: Vec<f32> = y.unwrap().into_data().try_into_vec().unwrap(); assert!(v[0] == 0.0); t.elapsed().as_secs_f64() };
            run(1);
            let (a, b) = (run(2), run(7));
            println!("{name} {r}x{c} n={n}: {:.2} ms, {:.2} GMAC/s", (b - a) * 200.0, (n * r * c) as f64 * 5.0 / (b - a) / 1e9);
        }}
    }
}
