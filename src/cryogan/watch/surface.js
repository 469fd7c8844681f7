// The isosurface of a map: each pixel's ray is followed until the density passes the level.

const VERTEX = `#version 300 es
out vec2 place;
void main() {
  place = vec2(gl_VertexID == 1 ? 3. : -1., gl_VertexID == 2 ? 3. : -1.);
  gl_Position = vec4(place, 0., 1.);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
precision highp sampler3D;
uniform sampler3D map;
uniform float level, box;
uniform mat3 view;
uniform vec3 colour;
in vec2 place;
out vec4 pixel;

float density(vec3 p) { return texture(map, p + 0.5).r; }

void main() {
  pixel = vec4(1.);
  float depth2 = 0.25 * (1. - dot(place, place));  // the map ends at the sphere that the box holds
  if (depth2 <= 0.) return;
  float end = sqrt(depth2), step = 0.7 / box;
  for (float t = end; t > -end; t -= step) {
    if (density(view * vec3(0.5 * place, t)) <= level) continue;
    float inside = t, outside = t + step;
    for (int i = 0; i < 5; i++) {
      float middle = 0.5 * (inside + outside);
      if (density(view * vec3(0.5 * place, middle)) > level) inside = middle; else outside = middle;
    }
    vec3 p = view * vec3(0.5 * place, inside);
    vec2 d = vec2(1.2 / box, 0.);
    vec3 normal = vec3(density(p - d.xyy) - density(p + d.xyy), density(p - d.yxy) - density(p + d.yxy),
                       density(p - d.yyx) - density(p + d.yyx));
    normal = normalize(normal + 1e-9) * view;
    float light = 0.3 + 0.7 * max(dot(normal, normalize(vec3(-0.5, 0.6, 0.8))), 0.);
    float near = 0.6 + 0.4 * (inside + 0.5);
    vec3 tint = mix(colour, vec3(1.), 0.1);
    pixel = vec4(tint * light * near + 0.35 * pow(max(normal.z, 0.), 12.) * light, 1.);
    return;
  }
}`;

/** Draws a map's surface on a canvas; null where the browser has no WebGL 2. */
export function makeSurface(canvas, colour) {
  const gl = canvas.getContext("webgl2");
  if (!gl) return null;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  const at = (name) => gl.getUniformLocation(program, name);
  gl.uniform3fv(at("colour"), colour);
  gl.bindTexture(gl.TEXTURE_3D, gl.createTexture());
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  for (const edge of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) {
    gl.texParameteri(gl.TEXTURE_3D, edge, gl.CLAMP_TO_EDGE);
  }
  gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
  return {
    load(voxels, box) {
      gl.texImage3D(gl.TEXTURE_3D, 0, gl.R8, box, box, box, 0, gl.RED, gl.UNSIGNED_BYTE, voxels);
      gl.uniform1f(at("box"), box);
    },
    /** level: 0 to 1 of the bytes; angle about the vertical axis and tilt towards the viewer, radians. */
    draw(level, angle, tilt) {
      const [c, s, ct, st] = [Math.cos(angle), Math.sin(angle), Math.cos(tilt), Math.sin(tilt)];
      const side = Math.round(canvas.clientWidth * Math.min(window.devicePixelRatio, 2));
      if (canvas.width !== side) canvas.width = canvas.height = side;
      gl.viewport(0, 0, side, side);
      gl.uniform1f(at("level"), level);
      gl.uniformMatrix3fv(at("view"), false, [c, 0, -s, s * st, ct, c * st, s * ct, -st, c * ct]);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    },
  };
}
