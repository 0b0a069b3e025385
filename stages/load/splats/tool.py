"""Files made of other files: a proxy mesh of splats, and splats of a mesh.

python -m nimbusd.stages.load.splats.tool proxy|sample INPUT OUTPUT
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import click

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mend.recentre import origin_m
from nimbusd.stages.load.mesh.loader import BProcObjLoader, MeshArgs, MeshConfig
from nimbusd.stages.load.splats.files import SplatUp, default_up, read_splats, z_up_from
from nimbusd.stages.load.splats.from_mesh import sample_splats
from nimbusd.stages.load.splats.ply import write_splat_ply
from nimbusd.stages.load.splats.proxy import occupied_voxels, voxel_mesh
from nimbusd.stages.types import SceneObject


@click.group()
def main() -> None:
    """Make a proxy mesh of splats, or splats of a mesh. Both are written in metres with z up."""


@main.command()
@click.argument("splats", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--up-axis", type=click.Choice(get_args(SplatUp)), help="axis of the file that points up")
@click.option("--unit-m", default=1.0, show_default=True, help="metres per unit of the file")
@click.option("--voxel-m", default=0.08, show_default=True, help="edge of a voxel")
@click.option("--cover", default=0.5, show_default=True, help="share of a voxel's face that Gaussians must cover")
@click.option("--cluster", default=30, show_default=True, help="smallest cluster of voxels that is kept")
def proxy(
    splats: Path, output: Path, up_axis: SplatUp | None, unit_m: float, voxel_m: float, cover: float, cluster: int
) -> None:
    """Write the voxels that SPLATS fill as a mesh, OUTPUT (.obj)."""
    try:
        T = z_up_from(up_axis or default_up(splats))
        T[:3, :3] *= unit_m
        cloud = read_splats(splats)
        cloud = replace(cloud, T_world_splats=T @ cloud.T_world_splats)
        voxels = occupied_voxels(cloud, voxel_m, min_cover=cover, min_cells=cluster)
    except AssetError as error:
        raise click.ClickException(str(error)) from error
    write_obj(output, voxel_mesh(voxels), f"derived: voxels of {voxel_m} m filled by {splats.name}")
    click.echo(f"{output}: {len(voxels.cells)} voxels")


@main.command()
@click.argument("mesh", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--count", default=400_000, show_default=True, help="about how many Gaussians")
@click.option("--unit-m", default=1.0, show_default=True, help="metres per unit of the mesh file")
@click.option("--seed", default=0, show_default=True)
def sample(mesh: Path, output: Path, count: int, unit_m: float, seed: int) -> None:
    """Sample Gaussians from MESH (.obj, .gltf, .glb, .ply) and write them to OUTPUT (.ply)."""
    try:
        scene = BProcObjLoader(MeshArgs()).load_asset(MeshConfig(name="mesh", path=mesh, unit_m=unit_m))
        cloud = sample_splats(scene.objects, count, seed)
    except (AssetError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    comments = [f"derived: sampled from {mesh.name}, seed {seed}"]
    if (shift := origin_m(scene)).any():
        comments.append(f"origin_m: {' '.join(f'{value:g}' for value in shift)} of the mesh file, in metres, z up")
    write_splat_ply(output, cloud, tuple(comments))
    click.echo(f"{output}: {len(cloud)} Gaussians")


def write_obj(path: Path, obj: SceneObject, comment: str) -> None:
    """The object's triangles in the world's frame."""
    lines = [f"# {comment}", f"o {obj.name}"]
    lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in obj.world_vertices()]
    lines += [f"f {a} {b} {c}" for a, b, c in obj.faces + 1]
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
