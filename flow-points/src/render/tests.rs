use super::*;
use flow_core::FlowRng;
use image::AnimationDecoder;
use image::codecs::gif::GifDecoder;

fn parallel() -> RenderOptions {
    let camera = Camera { azimuth: 0.0, elevation: 0.0, distance: f64::INFINITY };
    RenderOptions { size: 120, camera, ..RenderOptions::default() }
}

/// Points all over the unit sphere.
fn sphere(count: usize) -> Cloud {
    let mut rng = FlowRng::seed_from(1);
    let point = |_| {
        let p: [f64; 3] = std::array::from_fn(|_| rng.next_normal());
        let length = p.iter().map(|v| v * v).sum::<f64>().sqrt();
        p.map(|v| (v / length) as f32)
    };
    Cloud::new((0..count).map(point).collect())
}

#[test]
fn a_sphere_has_a_round_silhouette_without_holes() {
    let options = RenderOptions { radius: Some(0.02), ..parallel() };
    let picture = render(&sphere(20_000), &options).unwrap();
    let covered = picture.pixels().filter(|p| p.0 != [255, 255, 255]).count() as f64;
    let radius = 60.0 * 0.92 * 1.02;
    assert!((covered / (std::f64::consts::PI * radius * radius) - 1.0).abs() < 0.03, "{covered}");
    assert_ne!(picture.get_pixel(60, 60).0, [255, 255, 255]);
    assert_eq!(picture.get_pixel(2, 2).0, [255, 255, 255]);
}

#[test]
fn the_near_point_hides_the_far_one_and_turning_about_exchanges_them() {
    let cloud = Cloud {
        points: vec![[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]],
        colors: Some(vec![[255, 0, 0], [0, 0, 255]]),
        normals: None,
        ..Cloud::default()
    };
    let centre = |azimuth: f64| {
        let mut options = parallel();
        options.camera.azimuth = azimuth;
        options.radius = Some(0.2);
        let [r, _, b] = render(&cloud, &options).unwrap().get_pixel(60, 60).0;
        (r, b)
    };
    let ((front_red, front_blue), (back_red, back_blue)) = (centre(0.0), centre(std::f64::consts::PI));
    assert!(front_red > front_blue && back_blue > back_red);
}

#[test]
fn up_is_up_and_the_right_is_on_the_right() {
    let cloud = |p: [f32; 3]| Cloud::new(vec![p, [-p[0], -p[1], -p[2]], [0.0; 3]]);
    let mut options = parallel();
    options.radius = Some(0.1);
    let red = |p: [f32; 3]| {
        let cloud = Cloud { colors: Some(vec![[255, 0, 0], [0, 0, 0], [0, 0, 0]]), ..cloud(p) };
        let picture = render(&cloud, &options).unwrap();
        let strongest = picture
            .enumerate_pixels()
            .filter(|(_, _, p)| p.0[0] > p.0[1].saturating_add(60))
            .max_by_key(|(_, _, p)| p.0[0] - p.0[1]);
        strongest.map(|(x, y, _)| (x, y)).unwrap()
    };
    assert!(red([0.0, 1.0, 0.0]).1 < 30, "up");
    assert!(red([1.0, 0.0, 0.0]).0 > 90, "right");
}

#[test]
fn sheets_and_animations_have_their_sizes_and_survive_their_files() {
    let clouds = vec![sphere(50), sphere(60), sphere(70)];
    let sheet = contact_sheet(&clouds, 2, &parallel()).unwrap();
    assert_eq!(sheet.dimensions(), (240, 240));
    assert_eq!(sheet, contact_sheet(&clouds, 2, &parallel()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    write_png(&folder.path().join("a.png"), &sheet).unwrap();
    assert_eq!(image::open(folder.path().join("a.png")).unwrap().into_rgb8(), sheet);
    let turn = turntable(&clouds[..1], 5, &parallel()).unwrap();
    write_gif(&folder.path().join("a.gif"), &turn).unwrap();
    let bytes = std::fs::read(folder.path().join("a.gif")).unwrap();
    assert_eq!(GifDecoder::new(std::io::Cursor::new(bytes)).unwrap().into_frames().count(), 5);
    assert_eq!(frames(&clouds, &parallel()).unwrap().len(), 3);
    assert_eq!(mitsuba_xml(&clouds[0]).matches("sphere").count(), 50);
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let bad = [Cloud::default(), Cloud::new(vec![[f32::NAN, 0.0, 0.0]]), Cloud { colors: Some(vec![]), ..sphere(3) }];
    for cloud in bad {
        assert!(render(&cloud, &parallel()).unwrap_err().to_string().contains("picture"));
    }
    assert!(contact_sheet(&[], 3, &parallel()).is_err() && contact_sheet(&[sphere(2)], 0, &parallel()).is_err());
    assert!(render(&sphere(3), &RenderOptions { size: 0, ..parallel() }).is_err());
    assert!(turntable(&[sphere(3)], 0, &parallel()).is_err());
    // One point, or all at one place, is a picture all the same.
    assert!(render(&Cloud::new(vec![[1.0; 3]; 4]), &parallel()).is_ok());
}
