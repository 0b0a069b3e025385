"""The programs that run on the graphics device, in GLSL: light at corners, shadows from a map per lamp, pictures.

They compute what MuJoCo's own drawing with OpenGL's fixed pipeline computes: every lamp's light at the corners of
triangles, cut off at 1 for each lamp that casts shadows and for all others together, blended over the triangle, times
the picture.
"""

from __future__ import annotations

_PLACES = """
layout(std430, binding = 0) readonly buffer Places { vec4 places[]; };
vec3 moved(vec4 p, uint part) {
    return vec3(dot(places[3u * part], p), dot(places[3u * part + 1u], p), dot(places[3u * part + 2u], p));
}
"""

SHADOW_VERTEX = (
    "#version 430\n"
    + _PLACES
    + """
uniform mat4 projection;
in vec3 in_position;
in uint in_part;
void main() { gl_Position = projection * vec4(moved(vec4(in_position, 1.0), in_part), 1.0); }
"""
)

NOTHING_FRAGMENT = "#version 430\nvoid main() {}\n"
"""Depth alone."""

IDS_VERTEX = (
    "#version 430\n"
    + _PLACES
    + """
uniform mat4 projection;
in vec3 in_position;
in uint in_part;
in uint in_cluster;
flat out float id;
void main() {
    gl_Position = projection * vec4(moved(vec4(in_position, 1.0), in_part), 1.0);
    id = float(in_cluster + 1u);
}
"""
)

IDS_FRAGMENT = """#version 430
flat in float id;
out vec2 out_exact;
void main() { out_exact = vec2(id, 1.0 / gl_FragCoord.w); }
"""
"""Clusters from 1, which a float counts exactly up to 16 million, and metres along the optical axis."""

_LIGHT = """
struct Lamp { vec4 position; vec4 direction; vec4 ambient; vec4 diffuse; vec4 specular; vec4 fading; };
struct Material { vec4 rgba; vec4 gloss; };
layout(std430, binding = 1) readonly buffer Materials { Material materials[]; };
layout(std140, binding = 0) uniform Lamps { Lamp lamps[LAMPS]; };

vec3 lit(Lamp lamp, vec3 point, vec3 normal, vec3 to_eye, Material material) {
    vec3 to_lamp = -lamp.direction.xyz;
    float strength = 1.0;
    if (lamp.position.w > 0.0) {
        vec3 way = lamp.position.xyz - point;
        float far = length(way);
        to_lamp = way / max(far, 1e-9);
        strength = 1.0 / (lamp.fading.x + far * (lamp.fading.y + far * lamp.fading.z));
        float inside = dot(-to_lamp, lamp.direction.xyz);
        strength *= inside < lamp.direction.w ? 0.0 : pow(max(inside, 1e-9), lamp.fading.w);
    }
    float facing = dot(normal, to_lamp);
    vec3 colour = material.rgba.rgb * (lamp.ambient.rgb + max(facing, 0.0) * lamp.diffuse.rgb);
    if (facing > 0.0) {
        float mirror = max(dot(normal, normalize(to_lamp + to_eye)), 1e-9);
        colour += pow(mirror, material.gloss.y) * material.gloss.x * lamp.specular.rgb;
    }
    return strength * colour;
}
"""

_CORNER = """
uniform mat4 projection;
uniform vec3 eye;
in vec3 in_position;
in vec3 in_normal;
in uint in_part;
out vec4 plain;
void main() {
    vec3 point = moved(vec4(in_position, 1.0), in_part);
    vec3 normal = normalize(moved(vec4(in_normal, 0.0), in_part));
    Material material = materials[in_part];
    vec3 to_eye = normalize(eye - point);
    vec3 sum = material.gloss.z * material.rgba.rgb;
    for (int k = CASTING; k < LAMPS; ++k) sum += lit(lamps[k], point, normal, to_eye, material);
    plain = vec4(clamp(sum, 0.0, 1.0), material.rgba.a);
    gl_Position = projection * vec4(point, 1.0);
"""


def colour_vertex(lamps: int, casting: int, picture: str) -> str:
    """Light at corners. lamps: how many there are; the first `casting` of them cast shadows. picture: see below."""
    head = f"#version 430\n#define LAMPS {lamps}\n#define CASTING {casting}\n"
    outs = "".join(f"out vec3 light{k};\nout vec4 seen{k};\nuniform mat4 to_map{k};\n" for k in range(casting))
    end = "".join(
        f"    light{k} = clamp(lit(lamps[{k}], point, normal, to_eye, material), 0.0, 1.0);\n"
        f"    seen{k} = to_map{k} * vec4(point, 1.0);\n"
        for k in range(casting)
    )
    if picture != "none":
        outs, end = outs + "in vec3 in_uvw;\nout vec3 uvw;\n", end + "    uvw = in_uvw;\n"
    return head + _PLACES + _LIGHT + outs + _CORNER + end + "}\n"


def colour_fragment(casting: int, picture: str, opaque: bool) -> str:
    """Colour of a pixel. picture: `none`, `flat` or `cube`. Parts that are not opaque take no shadows."""
    look = {"none": "vec4(1.0)", "flat": "texture(picture, uvw.xy)", "cube": "texture(picture, uvw)"}[picture]
    sampler = {
        "none": "",
        "flat": "in vec3 uvw;\nuniform sampler2D picture;\n",
        "cube": "in vec3 uvw;\nuniform samplerCube picture;\n",
    }[picture]
    ins = "".join(f"in vec3 light{k};\nin vec4 seen{k};\nuniform sampler2DShadow map{k};\n" for k in range(casting))
    shade = "".join(
        f"    sum += light{k} * {f'textureProj(map{k}, seen{k})' if opaque else '1.0'};\n" for k in range(casting)
    )
    return (
        f"#version 430\n{ins}{sampler}in vec4 plain;\nout vec4 out_colour;\n"
        f"void main() {{\n    vec3 sum = plain.rgb;\n{shade}    vec4 look = {look};\n"
        f"    out_colour = vec4(sum * look.rgb, plain.a * look.a);\n}}\n"
    )
